// `educloud init` against the real things: files on disk, clc's database, a broker that imports the
// definitions.
#include <gmock/gmock.h>
#include <sys/stat.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "clc/store/store.hpp"
#include "cli/init/init.hpp"
#include "common/base/limits.hpp"
#include "common/sys/file.hpp"
#include "integration/cli_init/broker.hpp"

namespace educloud::cli {
namespace {

namespace fs = std::filesystem;

class Init : public testing::Test {
 protected:
  void SetUp() override {
    char pattern[] = "/tmp/educloud-init-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern), nullptr);
    root_ = pattern;
  }
  void TearDown() override { fs::remove_all(root_); }

  InitArguments arguments() {
    InitArguments out;
    out.host = "clc1";
    out.clusters = {"cc1"};
    out.nodes = {"nc1", "nc2"};
    out.addresses = {"nc2=127.0.0.2"};
    out.config_dir = root_ / "etc";
    out.state_dir = root_ / "lib";
    out.prefix = root_ / "storage";
    return out;
  }
  Result<InitReport> run(const InitArguments& with) {
    return run_init(with, [this]() -> Result<std::string> {
      ++asked_;
      return "correct horse battery";
    });
  }

  fs::path root_;
  int asked_ = 0;
};

std::string content(const fs::path& path) {
  std::ifstream stream(path);
  std::stringstream text;
  text << stream.rdbuf();
  return text.str();
}

std::map<std::string, std::string> tree(const fs::path& root) {
  std::map<std::string, std::string> out;
  for (const auto& one : fs::recursive_directory_iterator(root)) {
    if (one.is_regular_file()) out[one.path()] = content(one.path());
  }
  return out;
}

TEST_F(Init, MakesACloudAndASecondRunChangesNothing) {
  auto report = run(arguments());
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_TRUE(report->admin_created);
  EXPECT_EQ(asked_, 1);
  EXPECT_THAT(report->bundles, testing::ElementsAre(root_ / "etc/hosts/nc2"));
  const auto before = tree(root_ / "etc");
  auto again = run(arguments());
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_FALSE(again->admin_created);
  EXPECT_TRUE(again->written.empty());
  EXPECT_EQ(asked_, 1) << "asked for a password it does not need";
  EXPECT_EQ(tree(root_ / "etc"), before);
}

TEST_F(Init, KeepsSecretsToThemselves) {
  auto report = run(arguments());
  ASSERT_TRUE(report) << report.error().message;
  int secrets = 0;
  for (const auto& one : fs::recursive_directory_iterator(root_ / "etc")) {
    if (one.path().parent_path().filename() != "secrets" || !one.is_regular_file()) continue;
    struct stat status {};
    ASSERT_EQ(::stat(one.path().c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777, 0600u) << one.path();
    ++secrets;
  }
  EXPECT_EQ(secrets, 1 + 6 + 2 * 2 + 1 + 3);  // data key, logins, nodes' keys, host key; the bundle's
}

TEST_F(Init, LeavesAnAdministratorsConfigAlone) {
  ASSERT_TRUE(run(arguments()));
  const auto path = root_ / "etc" / "clc.conf";
  std::ofstream(path, std::ios::app) << "# mine\n";
  auto again = run(arguments());
  ASSERT_TRUE(again);
  EXPECT_THAT(again->kept, testing::ElementsAre(path));
  EXPECT_THAT(content(path), testing::HasSubstr("# mine"));
}

TEST_F(Init, AddsANodeLater) {
  ASSERT_TRUE(run(arguments()));
  auto more = arguments();
  more.nodes.push_back("nc3");
  auto report = run(more);
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_THAT(content(report->definitions), testing::HasSubstr("nc_cmd_queue.nc3"));
  auto store = clc::store::Store::open(report->database);
  ASSERT_TRUE(store);
  auto nodes = (*store)->read(
      [](clc::store::Sql& sql) -> Result<std::int64_t> { return sql.number("SELECT count(*) FROM nodes"); });
  EXPECT_EQ(nodes.value_or(-1), 3);
}

TEST_F(Init, AddsAClusterLaterAndMovesNone) {
  ASSERT_TRUE(run(arguments()));
  auto more = arguments();
  more.clusters = {"cc2", "cc1"};
  more.nodes = {"nc1@cc1", "nc2@cc1", "nc3@cc2"};
  more.addresses.insert(more.addresses.end(), {"cc2=127.0.0.3", "nc3=127.0.0.4"});
  auto report = run(more);
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_TRUE(report->kept.empty()) << report->kept.front();
  EXPECT_THAT(content(root_ / "etc" / "nc.conf"), testing::Not(testing::HasSubstr("vhost")));
  EXPECT_THAT(content(root_ / "etc" / "hosts" / "cc2" / "cc.conf"),
              testing::HasSubstr("[cluster_broker]\nvhost = \"cc2\""));
  const auto before = tree(root_ / "etc");
  ASSERT_TRUE(run(more));
  EXPECT_EQ(tree(root_ / "etc"), before);
  std::ofstream(report->definitions) << "half of it";
  auto refused = run(more);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, testing::HasSubstr("definitions.json"));
}

TEST_F(Init, WhileClcRunsOnlyNewHostsAreRefused) {
  auto report = run(arguments());
  ASSERT_TRUE(report);
  auto store = clc::store::Store::open(report->database);
  ASSERT_TRUE(store);
  auto again = run(arguments());
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_TRUE(again->database_in_use);
  auto more = arguments();
  more.nodes.push_back("nc3");
  auto refused = run(more);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::conflict);
}

TEST_F(Init, RefusesAPasswordFileThatOthersMayRead) {
  auto with = arguments();
  with.admin_password_file = root_ / "password";
  std::ofstream(with.admin_password_file) << "correct horse battery\n";
  ::chmod(with.admin_password_file.c_str(), 0644);
  EXPECT_FALSE(run(with));
  ::chmod(with.admin_password_file.c_str(), 0600);
  auto report = run(with);
  EXPECT_TRUE(report && report->admin_created);
}

// One broker for all that needs one: it takes ten seconds to start.
TEST_F(Init, TheBrokerTakesTheDefinitionsAndEnforcesThem) {
  auto report = run(arguments());
  ASSERT_TRUE(report) << report.error().message;
  test::Broker broker(root_ / "broker", report->definitions);
  ASSERT_TRUE(broker.is_up()) << broker.log();
  const auto password = [&](const std::string& user) {
    return *sys::read_secret_file(root_ / "etc" / "secrets" / ("broker-" + user + ".password"));
  };

  // The management API gets to know a queue's policy some seconds after the queue.
  nlohmann::json queues;
  const auto all_have_a_policy = [&] {
    queues = broker.get_json("/api/queues", "operator", password("operator"));
    return queues.is_array() && std::all_of(queues.begin(), queues.end(), [](const auto& one) {
             const auto at = one.find("policy");
             return at != one.end() && at->is_string() && !at->template get_ref<const std::string&>().empty();
           });
  };
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds{60};
  bool complete = all_have_a_policy();
  for (; !complete && std::chrono::steady_clock::now() < deadline; complete = all_have_a_policy()) {
    std::this_thread::sleep_for(std::chrono::milliseconds{200});
  }
  EXPECT_TRUE(complete) << "a queue without policy: " << queues.dump();
  std::map<std::string, std::string> types;
  for (const auto& queue : queues) types[queue.at("name")] = queue.at("type");
  EXPECT_EQ(types["nc_cmd_queue.nc1"], "quorum");
  EXPECT_EQ(types["nc_lease_queue.nc2"], "classic");
  EXPECT_EQ(types["cc_cmd_queue.cc1"], "quorum");
  EXPECT_EQ(types["clc_status_queue"], "quorum");
  EXPECT_EQ(types.size(), 12u);
  test::Client node(broker.port(), "nc-nc1", password("nc-nc1"));
  ASSERT_TRUE(node.is_open());
  EXPECT_EQ(node.consume("nc_cmd_queue.nc1"), "ok");
  EXPECT_EQ(node.consume("nc_cmd_queue.nc2"), "403");
  EXPECT_EQ(node.consume("clc_status_queue"), "403");
  EXPECT_EQ(node.publish("cc_status", "taskstatus.nc-nc1", "nc-nc1"), "ok");
  EXPECT_EQ(node.publish("cc_status", "taskstatus.nc-nc2", "nc-nc1"), "403") << "another node's routing key";
  EXPECT_EQ(node.publish("cc_status", "taskstatus.nc-nc1", "nc-nc2"), "406") << "another node's name";
  EXPECT_EQ(node.publish("nc_cmd", "nc2", "nc-nc1"), "403") << "orders to another node";
  EXPECT_EQ(node.declare("mine"), "403");
  EXPECT_FALSE(test::Client(broker.port(), "guest", "guest").is_open());
  EXPECT_FALSE(test::Client(broker.port(), "nc-nc1", "wrong").is_open());

  test::Client clc(broker.port(), "clc", password("clc"));
  EXPECT_EQ(clc.publish("cc_cmd", "cc1", "clc"), "ok");
  EXPECT_EQ(clc.publish("walrus_cmd", "walrus", "clc"), "ok");
  EXPECT_EQ(clc.publish("nc_cmd", "nc1", "clc"), "403") << "past the cluster controller";
  test::Client walrus(broker.port(), "walrus", password("walrus"));
  EXPECT_EQ(walrus.publish("clc_status", "taskstatus.walrus", "walrus"), "ok");
  EXPECT_EQ(walrus.publish("clc_status", "taskstatus.cc-cc1", "walrus"), "403");
  test::Client cluster(broker.port(), "cc-cc1", password("cc-cc1"));
  EXPECT_EQ(cluster.publish("clc_status", "nodestatus.cc-cc1", "cc-cc1"), "ok");
  EXPECT_EQ(cluster.consume("cc_status_queue"), "ok");
}

}  // namespace
}  // namespace educloud::cli
