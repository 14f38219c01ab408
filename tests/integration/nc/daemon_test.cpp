#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "common/base/clock.hpp"
#include "common/base/ids.hpp"
#include "common/chunk/manifest.hpp"
#include "common/http/client.hpp"
#include "common/image/version_store.hpp"
#include "common/msg/command.hpp"
#include "common/msg/host_status.hpp"
#include "common/msg/inventory.hpp"
#include "common/msg/lease.hpp"
#include "common/msg/task_status.hpp"
#include "common/transfer/grant.hpp"
#include "integration/bus/definitions.hpp"
#include "integration/bus/test_broker.hpp"
#include "integration/nc/own_libvirtd.hpp"
#include "integration/nc/reading_guest.hpp"
#include "integration/nc_submit/memory_walrus.hpp"
#include "nc/app/daemon.hpp"

namespace educloud::nc {
namespace {

using namespace educloud::test;
using ::testing::HasSubstr;

constexpr const char* kTid = "IMG00000001:IMG00000001:VD0000beef";
const std::string kNodeKey(64, '7');

nlohmann::json definitions() {
  nlohmann::json all;
  all["exchanges"] = {exchange("nc_cmd", "direct"), exchange("cc_status", "topic"),
                      exchange("dead_letter", "topic")};
  all["queues"] = {work_queue("nc_cmd_queue.nc1"), queue("nc_lease_queue.nc1"), work_queue("cc_status_queue"),
                   queue("cc_heartbeat_queue")};
  all["bindings"] = {bind("nc_cmd", "nc_cmd_queue.nc1", "nc1"),
                     bind("nc_cmd", "nc_lease_queue.nc1", "lease.nc1"),
                     bind("cc_status", "cc_status_queue", "taskstatus.#"),
                     bind("cc_status", "cc_heartbeat_queue", "nodestatus.#")};
  return all;
}

/// The real daemon with a real broker, libvirt and QEMU; the test is its cc.
class NcDaemon : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(OwnLibvirtd::is_possible()) << "run as root, with scripts/packages/run installed";
    ASSERT_TRUE(libvirtd_.start());
    broker_ = std::make_unique<TestBroker>(
        definitions(),
        std::vector<TestBroker::User>{{"nc-nc1", "^cc_status$", "^nc_(cmd|lease)_queue\\.nc1$"},
                                      {"cc-cc1", "^nc_cmd$", "^cc_(status|heartbeat)_queue$"}});
    prefix_ = libvirtd_.directory() / "storage";
    std::ofstream(libvirtd_.directory() / "node.key") << kNodeKey;
    std::filesystem::permissions(libvirtd_.directory() / "node.key", std::filesystem::perms{0600});
    publish_image();
    cc_ = bus::make_rabbit_bus(broker_->options("cc-cc1"));
    cc_->subscribe({"cc_status_queue", 64, [this](bus::Delivery delivery) {
                      std::lock_guard lock(mutex_);
                      told_.push_back(*msg::parse<msg::TaskStatus>(delivery.body));
                      EXPECT_EQ(delivery.user_id, "nc-nc1");
                      delivery.settle(bus::Verdict::ack);
                    }});
    cc_->subscribe({"cc_heartbeat_queue", 64, [this](bus::Delivery delivery) {
                      std::lock_guard lock(mutex_);
                      if (msg::is_type(delivery.body, "inventory")) {
                        inventory_ = *msg::parse<msg::Inventory>(delivery.body);
                      } else {
                        beat_ = *msg::parse<msg::NodeStatus>(delivery.body);
                        grant();
                      }
                      delivery.settle(bus::Verdict::ack);
                    }});
    cc_->start([] {});
    start();
  }
  void TearDown() override {
    daemon_.reset();
    if (cc_) cc_->stop();
  }

  void start() {
    Config config;
    config.common.host = "nc1";
    config.common.prefix = prefix_;
    config.common.state_dir = libvirtd_.directory() / "state";
    config.common.listen = "127.0.0.1";
    config.common.advertise = "127.0.0.1";
    config.common.broker.port = broker_->port();
    config.common.broker.user = "nc-nc1";
    config.common.broker.password_file = broker_->file("nc-nc1.secret");
    config.cc_url = walrus_.url();
    config.node_key_file = libvirtd_.directory() / "node.key";
    config.libvirt_uri = libvirtd_.uri();
    config.accel = "tcg";
    config.stop_grace_s = 1;
    daemon_ = std::make_unique<Daemon>(config);
    auto started = daemon_->start();
    ASSERT_TRUE(started) << started.error().message;
  }

  /// Version 1 of the image, as if it had been fetched: a boot sector that writes "up" to the console and
  /// halts.
  void publish_image() {
    std::string disk(1 << 20, '\0');
    constexpr unsigned char kCode[] = {0xfa, 0xba, 0xf8, 0x03, 0xb0, 'u', 0xee,
                                       0xb0, 'p',  0xee, 0xf4, 0xeb, 0xfd};
    std::copy(std::begin(kCode), std::end(kCode), disk.begin());
    disk[510] = '\x55';
    disk[511] = '\xaa';
    const auto map = walrus_.know(disk);
    source_ = {"IMG00000001", 1, map.manifest().digest().hex(), 64 * 1024, 1 << 20, "raw"};
    auto store = image::VersionStore::open(prefix_);
    ASSERT_TRUE(store) << store.error().message;
    const auto staged = *(*store)->staging("disk");
    std::ofstream(staged, std::ios::binary) << disk;
    image::VersionInfo info;
    info.image = source_.imgid;
    info.version = 1;
    info.digest = source_.digest;
    info.size_bytes = 64 * 1024;
    info.virtual_size_bytes = 1 << 20;
    info.format = "raw";
    auto published = (*store)->publish(staged, info, {{"manifest", map.serialize()}});
    ASSERT_TRUE(published) << published.error().message;
  }

  msg::Command command(const std::string& op) {
    msg::Command made;
    made.op = op;
    made.tid = kTid;
    made.nid = "nc1";
    made.cmdid = new_command_id().str();
    made.attempt = ++attempt_;
    made.source = source_;
    made.source_grant = walrus_.read_grant();
    auto& option = made.runtime_option.emplace();
    option.memory_mib = 32;
    option.rdp_port = display_port_;
    option.web_port = web_port_;
    option.display_password = "secret";
    return made;
  }
  /// As clc does it, through the cc: the node was heard of.
  void grant() {
    msg::Lease lease;
    lease.ccid = "cc1";
    lease.grants = {{"nc1", lease_epoch_}};
    (void)cc_->publish({"nc_cmd", "lease.nc1", msg::serialize(lease), "lease"}, [](bus::Outcome) {});
  }
  /// Sends the command and waits for its final status.
  msg::TaskStatus ask(const msg::Command& one) {
    EXPECT_TRUE(
        cc_->publish({"nc_cmd", "nc1", msg::serialize(one), new_command_id().str()}, [](bus::Outcome) {}));
    return final_of(one.cmdid);
  }
  msg::TaskStatus final_of(const std::string& cmdid, const std::string& event = {}) {
    msg::TaskStatus found;
    EXPECT_TRUE(wait_until([&] {
      std::lock_guard lock(mutex_);
      for (const auto& status : told_) {
        if (status.cmdid != cmdid || status.final != 1 || (!event.empty() && status.event != event)) continue;
        found = status;
        return true;
      }
      return false;
    }));
    return found;
  }
  http::ClientResponse get(const std::string& path, bool with_grant = true) {
    auto url = http::Url::parse("http://127.0.0.1:" + std::to_string(daemon_->port()));
    http::Client client(*url);
    http::ClientRequest request;
    request.target = path;
    const auto expires = SystemClock().wall_ms() / 1000 + 60;
    if (with_grant) request.target += "?" + transfer::sign_grant(kNodeKey, {"GET", path, "nc1", expires});
    auto response = client.send(request);
    EXPECT_TRUE(response) << response.error().message;
    return response ? *response : http::ClientResponse{};
  }
  std::optional<msg::VmData> reported_vm() {
    std::lock_guard lock(mutex_);
    for (const auto& vm : beat_.vm_data) {
      if (vm.insid == "VD0000beef") return vm;
    }
    return std::nullopt;
  }

  std::string console() { return get("/instances/VD0000beef/console").body; }

  MemoryWalrus walrus_;
  OwnLibvirtd libvirtd_;
  std::unique_ptr<TestBroker> broker_;
  std::filesystem::path prefix_;
  msg::ImageVersion source_;
  std::unique_ptr<bus::Bus> cc_;
  std::unique_ptr<Daemon> daemon_;
  std::mutex mutex_;
  std::vector<msg::TaskStatus> told_;
  msg::NodeStatus beat_;
  std::optional<msg::Inventory> inventory_;
  std::atomic<std::int64_t> lease_epoch_ = 1;
  std::int64_t attempt_ = 0;
  // The guest's, so none that an outgoing connection may have.
  const int display_port_ = test::free_port(), web_port_ = test::free_port();
};

TEST_F(NcDaemon, RunsADesktopThroughItsOwnRestartAndTellsItsEnd) {
  EXPECT_EQ(ask(command("image/prepare")).event, "prepared");
  const auto run = command("image/run");
  auto running = ask(run);
  ASSERT_EQ(running.event, "running") << running.errormsg;

  EXPECT_TRUE(
      wait_until([&] { return get("/instances/VD0000beef/console").body.find("up") != std::string::npos; }));
  EXPECT_TRUE(get("/instances/VD0000beef/screenshot").body.starts_with("\x89PNG"));
  EXPECT_EQ(get("/health", false).status, 200);
  EXPECT_EQ(get("/instances/VD0000beef/console", false).status, 403);
  EXPECT_EQ(get("/instances/VD0000dead/console").status, 404);
  EXPECT_EQ(get("/instances/VD0000dead/screenshot").status, 404);
  EXPECT_EQ(get("/instances/VD0000beefx/console").status, 400);

  ASSERT_TRUE(wait_until([&] { return reported_vm().has_value(); }));
  EXPECT_EQ(reported_vm()->state, "running");
  EXPECT_THAT(beat_.service_data.warnings, ::testing::Contains(HasSubstr("AppArmor")));

  daemon_.reset();
  start();
  if (HasFatalFailure()) return;
  {
    std::lock_guard lock(mutex_);
    told_.clear();
  }
  EXPECT_EQ(ask(run).event, "running");  // a duplicate: told again, not started again
  const pid_t guest = libvirtd_.guest_pid("VD0000beef");
  ASSERT_GT(guest, 1);
  kill(guest, SIGKILL);
  EXPECT_EQ(final_of(run.cmdid, "failed").state, "stopped");

  EXPECT_EQ(ask(command("image/run")).event, "running");
  auto stopped = ask(command("image/stop"));
  EXPECT_EQ(stopped.event, "stopped");
  EXPECT_THAT(stopped.prompt, HasSubstr("switched off"));
  EXPECT_FALSE(std::filesystem::exists(prefix_ / "VMs/VD0000beef/overlay.qcow2"));
  EXPECT_EQ(ask(command("task/delete")).event, "deleted");
  EXPECT_FALSE(std::filesystem::exists(prefix_ / "VMs/VD0000beef"));
}

TEST_F(NcDaemon, SaysWhatItHoldsOnceItIsGrantedALease) {
  EXPECT_TRUE(wait_until([&] {
    std::lock_guard lock(mutex_);
    return inventory_.has_value();
  })) << "on connect";
  EXPECT_EQ(ask(command("image/prepare")).event, "prepared");
  auto run = command("image/run");
  run.epoch = 3;
  ASSERT_EQ(ask(run).event, "running");
  lease_epoch_ = 5;
  grant();
  EXPECT_TRUE(wait_until([&] {
    std::lock_guard lock(mutex_);
    return inventory_->lease_epoch == 5;
  })) << "at once, not in half a minute";
  {
    std::lock_guard lock(mutex_);
    ASSERT_EQ(inventory_->vms.size(), 1u);
    EXPECT_EQ(inventory_->vms[0].tid, kTid);
    EXPECT_EQ(inventory_->vms[0].epoch, 3) << "from the domain's metadata";
    EXPECT_EQ(inventory_->tasks.at(0).cmdid, run.cmdid);
  }
  EXPECT_TRUE(std::filesystem::exists(libvirtd_.directory() / "state/lease"));
  auto forget = command("task/delete");
  forget.epoch = 3;
  EXPECT_EQ(ask(forget).event, "deleted");
}

TEST_F(NcDaemon, AVmThatDiedWhileNcAndLibvirtWereAwayIsTold) {
  EXPECT_EQ(ask(command("image/prepare")).event, "prepared");
  const auto run = command("image/run");
  ASSERT_EQ(ask(run).event, "running");
  const pid_t guest = libvirtd_.guest_pid("VD0000beef");
  ASSERT_GT(guest, 1);
  daemon_.reset();
  libvirtd_.kill_hard();
  kill(guest, SIGKILL);
  ASSERT_TRUE(libvirtd_.start());
  start();
  EXPECT_THAT(final_of(run.cmdid, "failed").errormsg, HasSubstr("while nc or libvirt was away"));
}

TEST_F(NcDaemon, ADesktopStartsWhileItsImageArrivesAndOutlivesOurRestart) {
  const auto map = walrus_.know(reading_guest_disk());
  source_ = {"IMG00000001", 2, map.manifest().digest().hex(), 1 << 20, 1 << 20, "raw"};
  const auto lazy = [&](const std::string& op) {
    auto made = command(op);
    made.lazy = 1;
    made.source_grant = transfer::sign_grant(
        MemoryWalrus::kKey,
        {"GET", transfer::version_path("IMG00000001", 2), "nc1", SystemClock().wall_ms() / 1000 + 600});
    return made;
  };
  walrus_.hold(map.at(1));  // all after the chunk that boots
  EXPECT_EQ(ask(lazy("image/prepare")).event, "prepared");
  const auto run = lazy("image/run");
  auto running = ask(run);
  ASSERT_EQ(running.event, "running") << running.errormsg;
  ASSERT_TRUE(wait_until([&] { return console().size() > 20; })) << console();
  EXPECT_FALSE(std::filesystem::exists(prefix_ / "images/IMG00000001/versions/2"));

  daemon_.reset();
  start();
  if (HasFatalFailure()) return;
  walrus_.let_go();
  // 128 sectors were in the first chunk: what comes after them came after our restart.
  EXPECT_TRUE(wait_until([&] { return console().size() > 160; })) << console();
  EXPECT_EQ(console().find('E'), std::string::npos) << console();
  EXPECT_TRUE(wait_until([&] { return std::filesystem::exists(prefix_ / "images/IMG00000001/versions/2"); }));
  EXPECT_EQ(ask(lazy("image/stop")).event, "stopped");
  EXPECT_FALSE(std::filesystem::exists(prefix_ / "VMs/VD0000beef/disk.nbd"));

  EXPECT_EQ(ask(lazy("image/run")).event, "running");
  EXPECT_FALSE(std::filesystem::exists(prefix_ / "VMs/VD0000beef/disk.nbd")) << "it is all here now";
  EXPECT_TRUE(wait_until([&] { return console().size() > 20; }));
  EXPECT_EQ(ask(command("task/delete")).event, "deleted");
}

}  // namespace
}  // namespace educloud::nc
