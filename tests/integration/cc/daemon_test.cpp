#include <set>

#include "common/base/ids.hpp"
#include "common/msg/command.hpp"
#include "common/msg/host_status.hpp"
#include "common/msg/inventory.hpp"
#include "common/msg/lease.hpp"
#include "common/msg/task_status.hpp"
#include "integration/bus/collector.hpp"
#include "integration/bus/definitions.hpp"
#include "integration/cc/daemon.hpp"
#include "integration/cc/relay_fixture.hpp"
#include "support/fault.hpp"
#include "support/paths.hpp"

namespace educloud::test {
namespace {

using namespace std::chrono_literals;

const std::string kImage = "IMG0000000a";
const std::string kTid = kImage + ":" + kImage + ":VD00000002";

nlohmann::json cloud_definitions() {
  return {{"exchanges",
           {exchange("cc_cmd", "direct"), exchange("nc_cmd", "direct"), exchange("cc_status", "topic"),
            exchange("clc_status", "topic"), exchange("dead_letter", "topic")}},
          {"queues",
           {work_queue("cc_cmd_queue.cc1"), work_queue("nc_cmd_queue.nc1"), queue("nc_lease_queue.nc1"),
            work_queue("cc_status_queue"), work_queue("clc_status_queue"), queue("cc_heartbeat_queue"),
            queue("clc_heartbeat_queue"), queue("dead")}},
          {"bindings",
           {bind("cc_cmd", "cc_cmd_queue.cc1", "cc1"), bind("nc_cmd", "nc_cmd_queue.nc1", "nc1"),
            bind("nc_cmd", "nc_lease_queue.nc1", "lease.nc1"),
            bind("cc_status", "cc_status_queue", "taskstatus.#"),
            bind("cc_status", "cc_heartbeat_queue", "nodestatus.#"),
            bind("clc_status", "clc_status_queue", "taskstatus.#"),
            bind("clc_status", "clc_heartbeat_queue", "nodestatus.#"),
            bind("clc_status", "clc_heartbeat_queue", "ccstatus.#"), bind("dead_letter", "dead", "#")}}};
}

const std::vector<TestBroker::User> kUsers{
    {"clc", "^cc_cmd$", "^(clc_(status|heartbeat)_queue|dead)$"},
    {"cc-cc1", "^(nc_cmd|clc_status)$", "^(cc_cmd_queue\\.cc1|cc_(status|heartbeat)_queue)$"},
    {"nc-nc1", "^cc_status$", "^nc_(cmd|lease)_queue\\.nc1$"}};

/// educloud-cc as a process between a real broker, walrus' data routes, and a clc and a node made of test
/// code. One broker and one cc for all tests here; each uses ids of its own.
class CcDaemonTest : public ::testing::Test {
 protected:
  struct World {
    World() : cc(test::binary_dir() / "bin/educloud-cc", broker.file("cc.conf")), port(free_port()) {
      broker.write("data_key", kDataKey, 0600);
      broker.write("cc.conf",
                   "host = \"cc1\"\nprefix = \"" + prefix.path().string() +
                       "\"\nlisten = \"127.0.0.1\"\nport = " + std::to_string(port) +
                       "\nadvertise = \"127.0.0.1\"\nwalrus_url = \"" + walrus.url() +
                       "\"\ndata_key_file = \"" + broker.file("data_key") +
                       "\"\n[broker]\nport = " + std::to_string(broker.port()) +
                       "\nuser = \"cc-cc1\"\npassword_file = \"" + broker.file("cc-cc1.secret") + "\"\n",
                   0644);
      cc.start();
    }
    TestBroker broker{cloud_definitions(), kUsers};
    ChunkWalrus walrus;
    testing::TempDir prefix;
    Daemon cc;
    int port;
  };
  static void SetUpTestSuite() { world = new World; }
  static void TearDownTestSuite() {
    EXPECT_EQ(world->cc.stop(), 0);
    EXPECT_TRUE(std::filesystem::exists(world->prefix.path() / "config" / "metrics" / "cc.prom"));
    delete world;
    world = nullptr;
  }
  void SetUp() override {
    clc_ = bus::make_rabbit_bus(world->broker.options("clc"));
    node_ = bus::make_rabbit_bus(world->broker.options("nc-nc1"));
    clc_->subscribe({"clc_status_queue", 64, statuses_.sink()});
    clc_->subscribe({"clc_heartbeat_queue", 64, heartbeats_.sink()});
    node_->subscribe({"nc_cmd_queue.nc1", 64, commands_.sink()});
    node_->subscribe({"nc_lease_queue.nc1", 1, leases_.sink()});
    clc_->start({});
    node_->start({});
  }
  void TearDown() override {
    clc_->stop();
    node_->stop();
  }

  static msg::Command command(const std::string& node = "nc1") {
    msg::Command out;
    out.op = "image/stop";
    out.tid = kTid;
    out.cmdid = new_command_id().str();
    out.nid = node;
    out.ccid = "cc1";
    out.deadline = SystemClock().wall_ms() + 600'000;
    return out;
  }
  void publish(bus::Bus& from, const std::string& to, const std::string& key, const std::string& body,
               const std::string& msgid) {
    auto ok = from.publish({to, key, body, msgid}, outcomes_.of(msgid));
    ASSERT_TRUE(ok) << ok.error().message;
  }
  /// For what its sender says every few seconds and cc passes on as well as it can: said again until `done`.
  bool say_until(bus::Bus& from, const std::string& to, const std::string& key, const std::string& body,
                 const std::function<bool()>& done) {
    for (int round = 0; round < 60; ++round) {
      publish(from, to, key, body, key + " " + std::to_string(round));
      if (wait_until(done, std::chrono::seconds{1})) return true;
    }
    return false;
  }
  static http::Url url() { return *http::Url::parse("http://127.0.0.1:" + std::to_string(world->port)); }
  static http::ClientResponse get(const std::string& target) {
    http::Client client(url());
    auto answer = client.send({.target = target});
    return answer.value_or(http::ClientResponse{});
  }
  /// A heartbeat of nc1 whose HTTP server is at `port`, until it has reached clc.
  void announce_node(int port) {
    msg::NodeStatus status;
    status.nid = "nc#52:54:00:00:00:01#status";
    status.host = "nc1";
    status.ts = SystemClock().wall_ms();
    status.net_data.ip0 = "127.0.0.1";
    status.service_data.data_port = port;
    ASSERT_TRUE(say_until(*node_, "cc_status", "nodestatus.nc-nc1", msg::serialize(status),
                          [&] { return heartbeat("nodestatus.cc-cc1").has_value(); }));
  }
  std::optional<nlohmann::json> heartbeat(const std::string& key) {
    for (const auto& one : heartbeats_.all()) {
      if (one.routing_key == key) return nlohmann::json::parse(one.body);
    }
    return std::nullopt;
  }

  static inline World* world = nullptr;
  Outcomes outcomes_;
  Deliveries commands_, leases_, statuses_, heartbeats_;
  std::unique_ptr<bus::Bus> clc_, node_;
};

TEST_F(CcDaemonTest, LeasesGoDownAndInventoriesComeUp) {
  msg::Lease lease;
  lease.ccid = "cc1";
  lease.grants = {{"nc1", 3}, {"nc9", 1}};
  ASSERT_TRUE(say_until(*clc_, "cc_cmd", "cc1", msg::serialize(lease), [&] { return leases_.count() > 0; }));
  const auto own = msg::parse<msg::Lease>(leases_.all()[0].body);
  ASSERT_TRUE(own);
  ASSERT_EQ(own->grants.size(), 1u);
  EXPECT_EQ(own->grants[0].epoch, 3);

  msg::Inventory inventory;
  inventory.host = "nc1";
  inventory.round = "r1";
  const auto has_come = [&] {
    for (const auto& one : heartbeats_.all()) {
      if (msg::is_type(one.body, "inventory")) return msg::parse<msg::Inventory>(one.body)->ccid == "cc1";
    }
    return false;
  };
  EXPECT_TRUE(say_until(*node_, "cc_status", "nodestatus.nc-nc1", msg::serialize(inventory), has_come));
}

TEST_F(CcDaemonTest, CommandsGoDownAndStatusesComeUp) {
  const auto order = command();
  publish(*clc_, "cc_cmd", "cc1", msg::serialize(order), order.cmdid);
  ASSERT_TRUE(commands_.wait(1));
  EXPECT_EQ(commands_.all()[0].body, msg::serialize(order));

  msg::TaskStatus status;
  status.phase = "editing";
  status.state = "stopped";
  status.tid = kTid;
  status.cmdid = order.cmdid;
  status.nid = "nc1";
  publish(*node_, "cc_status", "taskstatus.nc-nc1", msg::serialize(status), "s1");
  ASSERT_TRUE(statuses_.wait(1));
  EXPECT_EQ(statuses_.all()[0].user_id, "cc-cc1");
  EXPECT_EQ(nlohmann::json::parse(statuses_.all()[0].body)["ccid"], "cc1");
}

TEST_F(CcDaemonTest, ACommandForAnUnknownNodeComesBackAsAFailure) {
  const auto order = command("nc9");
  publish(*clc_, "cc_cmd", "cc1", msg::serialize(order), order.cmdid);
  ASSERT_TRUE(statuses_.wait(1));
  const auto status = msg::parse<msg::TaskStatus>(statuses_.all()[0].body);
  ASSERT_TRUE(status) << status.error().message;
  EXPECT_EQ(status->cmdid, order.cmdid);
  EXPECT_EQ(status->event, "failed");
  EXPECT_NE(status->errormsg.find("nc9"), std::string::npos);
}

TEST_F(CcDaemonTest, ForgedAndMalformedMessagesAreDeadLettered) {
  Deliveries dead;
  auto audit = bus::make_rabbit_bus(world->broker.options("clc"));
  audit->subscribe({"dead", 64, dead.sink()});
  audit->start({});
  msg::TaskStatus forged;
  forged.phase = "editing";
  forged.state = "running";
  forged.tid = kTid;
  forged.nid = "nc2";  // but sent with the login of nc1
  publish(*node_, "cc_status", "taskstatus.nc-nc1", msg::serialize(forged), "forged");
  publish(*node_, "cc_status", "taskstatus.nc-nc1", "{\"type\":", "broken");
  publish(*clc_, "cc_cmd", "cc1", "[]", "nonsense");
  educloud::test::injected("poison", 3);
  EXPECT_TRUE(dead.wait(3));
  EXPECT_EQ(statuses_.count(), 0u);
}

TEST_F(CcDaemonTest, HeartbeatsOfNodeAndClusterReachClc) {
  announce_node(8003);
  ASSERT_TRUE(wait_until([&] { return heartbeat("ccstatus.cc-cc1").has_value(); }));
  const auto own = msg::from_json<msg::CcStatus>(*heartbeat("ccstatus.cc-cc1"));
  ASSERT_TRUE(own) << own.error().message;
  EXPECT_EQ(own->host, "cc1");
  EXPECT_EQ(own->net_data.ip0, "127.0.0.1");
  EXPECT_EQ(own->service_data.data_port, world->port);
  EXPECT_GT(own->hardware_data.mem, 0);
  const auto health = get("/health");
  EXPECT_EQ(health.status, 200);
  EXPECT_TRUE(nlohmann::json::parse(health.body)["broker"].get<bool>());
}

TEST_F(CcDaemonTest, KilledInTheMiddleItLosesNoCommand) {
  constexpr int kCommands = 400;
  std::set<std::string> missing;
  for (int i = 0; i < kCommands; ++i) {
    const auto order = command();
    missing.insert(order.cmdid);
    publish(*clc_, "cc_cmd", "cc1", msg::serialize(order), order.cmdid);
    if (i % 100 == 50) {
      ASSERT_TRUE(commands_.wait(static_cast<std::size_t>(i / 2)));
      world->cc.kill();
      educloud::test::injected("daemon-killed");
      world->cc.start();
    }
  }
  const auto all_there = [&] {
    for (const auto& one : commands_.all())
      missing.erase(nlohmann::json::parse(one.body)["cmdid"].get<std::string>());
    return missing.empty();
  };
  EXPECT_TRUE(wait_until(all_there, 60s)) << missing.size() << " of " << kCommands << " never came";
}

TEST_F(CcDaemonTest, AnImageTravelsDownAndASubmitUpAlsoThroughAKill) {
  const SampleDisk disk(300, 1), changed(200, 2);
  world->walrus.add(kImage, 1, disk);
  world->walrus.set_current(kImage, 1);
  ASSERT_TRUE(wait_until([&] { return get("/health").status == 200; }));
  auto ok = Node(url(), "nc1", kImage, 1).fetch_all(disk);
  ASSERT_TRUE(ok) << ok.error().message;

  std::string frames;
  for (const auto& id : changed.order) frames += changed.frames.at(id);
  Node writer(url(), "nc1", kImage, 2, transfer::Priority::user, "PUT");
  Result<> sent = fail(ErrorCode::internal, "not sent yet");
  std::thread upload([&] { sent = writer->store(frames, {}); });
  EXPECT_TRUE(wait_until([&] { return world->walrus.stored_bytes > 0 || sent; }));
  world->cc.kill();
  world->cc.start();
  upload.join();
  ASSERT_TRUE(wait_until([&] { return writer->store(frames, {}).has_value(); }));
  auto text = writer->publish({changed.manifest(), transfer::make_parent(kImage, 1),
                               transfer::make_parent(kImage, 1), new_command_id().str()},
                              {});
  ASSERT_TRUE(text) << text.error().message;
  EXPECT_TRUE(transfer::verify_receipt(kDataKey, *text));

  // Both versions are here now; a kill loses at most what was not committed to the index.
  const std::uint64_t before = world->walrus.sent_bytes;
  ok = Node(url(), "nc2", kImage, 2).fetch_all(changed);
  EXPECT_TRUE(ok) << ok.error().message;
  EXPECT_EQ(world->walrus.sent_bytes, before);
  ok = Node(url(), "nc2", kImage, 1).fetch_all(disk);
  EXPECT_TRUE(ok) << ok.error().message;
  EXPECT_LT(world->walrus.sent_bytes, before + disk.frame_bytes + 1);
  const auto told = [&] {
    for (const auto& one : heartbeats_.all()) {
      if (one.body.find(changed.digest().hex()) != std::string::npos) return true;
    }
    return false;
  };
  EXPECT_TRUE(wait_until(told)) << "the heartbeat names the cached versions";
}

TEST_F(CcDaemonTest, ANodesHeartbeatMakesItANeighbour) {
  announce_node(8003);
  ASSERT_TRUE(wait_until([&] { return get("/health").status == 200; }));
  auto first = Node(url(), "nc1", kImage, 9)->get_json("peers?complete=0", {});
  ASSERT_TRUE(first) << first.error().message;
  auto second = Node(url(), "nc2", kImage, 9)->get_json("peers?complete=0", {});
  ASSERT_TRUE(second) << second.error().message;
  ASSERT_EQ((*second)["members"].size(), 1u) << second->dump();
  EXPECT_EQ((*second)["members"][0]["url"], "http://127.0.0.1:8003");
}

TEST_F(CcDaemonTest, AScreenshotComesThroughAsItIs) {
  const std::string picture("\x89PNG\0\r\n<script>", 15);
  http::Router router;
  router.add({.method = "GET",
              .pattern = "/instances/{insid}/screenshot",
              .handler = [&](const http::Request& request) {
                http::Response response;
                response.headers["Content-Type"] = "image/png";
                response.body = picture + request.query.at("node");
                return response;
              }});
  router.add({.method = "GET", .pattern = "/instances/{insid}/console", .handler = [](const http::Request&) {
                return http::error_response({ErrorCode::conflict, "the VM does not run"});
              }});
  http::Server node({}, std::move(router));
  ASSERT_TRUE(node.start());
  announce_node(node.port());
  const auto key = transfer::derive_node_key(kDataKey, "nc1");
  const auto ask = [&](const std::string& where, const std::string& what, const std::string& with_key) {
    return get("/nodes/" + where + "/instances/VD00000002/" + what + "?" +
               grant_for("nc1", "GET", "/instances/VD00000002/" + what, with_key));
  };
  const auto good = ask("nc1", "screenshot", key);
  EXPECT_EQ(good.status, 200);
  EXPECT_EQ(good.body, picture + "nc1");
  EXPECT_EQ(good.header("Content-Type"), "image/png");
  EXPECT_EQ(good.header("X-Content-Type-Options"), "nosniff");
  const auto off = ask("nc1", "console", key);
  EXPECT_EQ(off.status, 409);
  EXPECT_NE(off.body.find("does not run"), std::string::npos);
  EXPECT_EQ(ask("nc1", "screenshot", std::string(64, 'f')).status, 403);
  EXPECT_EQ(ask("nc9", "screenshot", transfer::derive_node_key(kDataKey, "nc9")).status, 404);
  EXPECT_EQ(ask("NC1", "screenshot", key).status, 400);
  node.stop();
  EXPECT_EQ(ask("nc1", "screenshot", key).status, 503);
}

}  // namespace
}  // namespace educloud::test
