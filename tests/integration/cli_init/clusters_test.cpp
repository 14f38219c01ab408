// Two clusters of one cloud: a real broker with the objects and rights that `educloud init` writes, and both
// cluster controllers as they are. clc and the nodes are test code with their own logins.
#include <gtest/gtest.h>

#include "cc/app/app.hpp"
#include "cli/init/definitions.hpp"
#include "common/base/clock.hpp"
#include "common/base/ids.hpp"
#include "common/msg/command.hpp"
#include "common/msg/host_status.hpp"
#include "common/msg/task_status.hpp"
#include "integration/bus/collector.hpp"
#include "integration/bus/test_broker.hpp"
#include "integration/cli_init/broker.hpp"

namespace educloud::test {
namespace {

const std::vector<std::string> kLogins{"clc", "cc-cc1", "cc-cc2", "nc-nc1", "nc-nc2"};

nlohmann::json definitions() {
  cli::InitArguments arguments;
  arguments.host = "main";
  arguments.clusters = {"cc1", "cc2"};
  arguments.nodes = {"nc1@cc1", "nc2@cc2"};
  const auto plan = cli::make_plan(arguments);
  if (!plan) std::abort();
  std::map<std::string, std::string> passwords;
  for (const auto& user : plan->broker_users()) passwords[user] = user + "-password";
  return cli::render_definitions(*plan, passwords);
}

class Clusters : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    broker = new TestBroker(definitions(), {});
    for (const auto& user : kLogins) broker->write(user + ".secret", user + "-password\n", 0600);
    broker->write("data_key", std::string(64, 'd'), 0600);
  }
  static void TearDownTestSuite() {
    delete broker;
    broker = nullptr;
  }
  void SetUp() override {
    start_cc(0, "cc1", "/");
    start_cc(1, "cc2", "cc2");
    clc_ = connect("clc", "/");
    clc_->subscribe({"clc_status_queue", 64, statuses_.sink()});
    clc_->subscribe({"clc_heartbeat_queue", 64, heartbeats_.sink()});
    clc_->start({});
    start_node(0, "nc1", "/");
    start_node(1, "nc2", "cc2");
  }
  void TearDown() override {
    for (auto& node : nodes_) node->stop();
    clc_->stop();
    for (auto& cc : ccs_) cc->stop();
  }
  std::unique_ptr<bus::Bus> connect(const std::string& user, const std::string& vhost) {
    auto options = broker->options(user);
    options.vhost = vhost;
    return bus::make_rabbit_bus(options);
  }
  void start_cc(std::size_t number, const std::string& name, const std::string& vhost) {
    cc::Config config;
    config.common.host = name;
    config.common.prefix = dirs_[number].path();
    config.common.listen = config.common.advertise = "127.0.0.1";
    config.common.broker.port = broker->port();
    config.common.broker.user = "cc-" + name;
    config.common.broker.password_file = broker->file("cc-" + name + ".secret");
    config.cluster_broker = config.common.broker;
    config.cluster_broker.vhost = vhost;
    config.walrus_url = "http://127.0.0.1:1";
    config.data_key_file = broker->file("data_key");
    config.cache_bytes = 256ll << 20;
    auto app = cc::App::create(config);
    ASSERT_TRUE(app) << app.error().message;
    ASSERT_TRUE((*app)->start());
    ccs_[number] = std::move(*app);
  }
  void start_node(std::size_t number, const std::string& name, const std::string& vhost) {
    nodes_[number] = connect("nc-" + name, vhost);
    nodes_[number]->subscribe({"nc_cmd_queue." + name, 4, commands_[number].sink()});
    nodes_[number]->start({});
  }
  void report(const std::string& node, const std::string& msgid) {
    msg::TaskStatus status;
    status.phase = "editing";
    status.state = "running";
    status.tid = "IMG0000000a:IMG0000000a:VD00000002";
    status.msgid = msgid;
    status.nid = node;
    auto& bus = *nodes_[node == "nc1" ? 0 : 1];
    EXPECT_TRUE(bus.publish({"cc_status", "taskstatus.nc-" + node, msg::serialize(status), msgid},
                            outcomes_.of(msgid)));
  }
  void beat(const std::string& node) {
    msg::NodeStatus status;
    status.nid = "nc#52:54:00:00:00:01#status";
    status.host = node;
    auto& bus = *nodes_[node == "nc1" ? 0 : 1];
    EXPECT_TRUE(bus.publish({"cc_status", "nodestatus.nc-" + node, msg::serialize(status), "beat"}, {}));
  }
  std::string order(const std::string& cluster, const std::string& node) {
    msg::Command command;
    command.op = "image/stop";
    command.tid = "IMG0000000a:IMG0000000a:VD00000002";
    command.cmdid = new_command_id().str();
    command.nid = node;
    command.ccid = cluster;
    command.deadline = SystemClock().wall_ms() + 600'000;
    EXPECT_TRUE(clc_->publish({"cc_cmd", cluster, msg::serialize(command), command.cmdid},
                              outcomes_.of(command.cmdid)));
    return command.cmdid;
  }
  /// True once a status with this msgid has reached clc; all that did must be right about whom they are from.
  bool has_status(const std::string& msgid) {
    bool found = false;
    for (const auto& one : statuses_.all()) {
      const auto status = msg::parse<msg::TaskStatus>(one.body);
      if (!status) continue;
      EXPECT_EQ(status->nid.substr(2), status->ccid.substr(2))
          << "of " << status->nid << " by " << status->ccid;
      EXPECT_EQ(one.user_id, "cc-" + status->ccid);
      found = found || status->msgid == msgid;
    }
    return found;
  }
  static bool has_command(Deliveries& commands, const std::string& cmdid) {
    const auto all = commands.all();
    return std::any_of(all.begin(), all.end(),
                       [&](const auto& one) { return one.body.find(cmdid) != std::string::npos; });
  }

  static inline TestBroker* broker = nullptr;
  testing::TempDir dirs_[2];
  Outcomes outcomes_;
  Deliveries statuses_, heartbeats_, commands_[2];
  std::unique_ptr<cc::App> ccs_[2];
  std::unique_ptr<bus::Bus> clc_, nodes_[2];
};

TEST_F(Clusters, EachTakesOnlyWhatItsOwnNodesSay) {
  constexpr int kStatuses = 100;
  for (int i = 0; i < kStatuses; ++i) {
    report("nc1", "one-" + std::to_string(i));
    report("nc2", "two-" + std::to_string(i));
  }
  ASSERT_TRUE(statuses_.wait(2 * kStatuses));
  for (int i = 0; i < kStatuses; ++i) {
    EXPECT_TRUE(has_status("one-" + std::to_string(i)));
    EXPECT_TRUE(has_status("two-" + std::to_string(i)));
  }
  beat("nc1");
  beat("nc2");
  const auto stamped = [&](const std::string& node, const std::string& cluster) {
    const auto all = heartbeats_.all();
    return std::any_of(all.begin(), all.end(), [&](const auto& one) {
      const auto status = msg::parse<msg::NodeStatus>(one.body);
      return status && status->host == node && one.user_id == "cc-" + cluster;
    });
  };
  EXPECT_TRUE(wait_until([&] { return stamped("nc1", "cc1") && stamped("nc2", "cc2"); }));
  EXPECT_FALSE(stamped("nc1", "cc2") || stamped("nc2", "cc1"));
}

TEST_F(Clusters, ACommandFindsTheWayToItsCluster) {
  const auto first = order("cc1", "nc1"), second = order("cc2", "nc2");
  EXPECT_TRUE(wait_until([&] { return has_command(commands_[0], first); }));
  EXPECT_TRUE(wait_until([&] { return has_command(commands_[1], second); }));
  const auto astray = order("cc2", "nc1");  // no node of cc2
  const auto refused = [&] {
    for (const auto& one : statuses_.all()) {
      const auto status = msg::parse<msg::TaskStatus>(one.body);
      if (status && status->cmdid == astray) return status->event == "failed" && one.user_id == "cc-cc2";
    }
    return false;
  };
  EXPECT_TRUE(wait_until(refused));
  EXPECT_FALSE(has_command(commands_[0], astray));
}

TEST_F(Clusters, EitherSideMayBreak) {
  report("nc2", "before");
  ASSERT_TRUE(wait_until([&] { return has_status("before"); }));
  for (const std::string vhost : {"/", "cc2"}) {
    broker->ctl({"close_all_connections", "--vhost", vhost, "test"});
    const std::string msgid = "after-" + vhost;
    report("nc2", msgid);
    const auto cmdid = order("cc2", "nc2");
    EXPECT_TRUE(wait_until([&] { return has_status(msgid); }, std::chrono::seconds{90})) << vhost;
    EXPECT_TRUE(wait_until([&] { return has_command(commands_[1], cmdid); }, std::chrono::seconds{90}))
        << vhost;
  }
  EXPECT_TRUE(wait_until([&] { return ccs_[1]->is_ready(); }));
}

TEST_F(Clusters, RightsEndAtTheVhost) {
  const auto client = [&](const std::string& user, const std::string& vhost) {
    return std::make_unique<Client>(broker->port(), user, user + "-password", vhost);
  };
  EXPECT_FALSE(client("nc-nc2", "/")->is_open());
  EXPECT_FALSE(client("nc-nc1", "cc2")->is_open());
  EXPECT_FALSE(client("cc-cc1", "cc2")->is_open());
  EXPECT_FALSE(client("clc", "cc2")->is_open());
  const auto node = client("nc-nc2", "cc2");
  ASSERT_TRUE(node->is_open());
  EXPECT_EQ(node->publish("cc_status", "taskstatus.nc-nc2", "nc-nc2"), "ok");
  EXPECT_EQ(node->publish("cc_status", "taskstatus.nc-nc1", "nc-nc2"), "403");
  EXPECT_EQ(node->publish("nc_cmd", "nc2", "nc-nc2"), "403");
  EXPECT_EQ(node->consume("cc_status_queue"), "403");
  const auto above = client("cc-cc2", "/"), below = client("cc-cc2", "cc2");
  ASSERT_TRUE(above->is_open() && below->is_open());
  EXPECT_EQ(above->consume("cc_status_queue"), "403") << "the statuses of cc1's nodes";
  EXPECT_EQ(above->publish("nc_cmd", "nc1", "cc-cc2"), "403") << "orders to cc1's nodes";
  EXPECT_EQ(above->publish("clc_status", "ccstatus.cc-cc2", "cc-cc2"), "ok");
  EXPECT_EQ(below->publish("cc_status", "taskstatus.nc-nc2", "cc-cc2"), "403") << "in a node's name";
  EXPECT_EQ(client("operator", "cc2")->consume("dead_letter_queue"), "ok");
}

}  // namespace
}  // namespace educloud::test
