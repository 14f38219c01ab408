#include <gmock/gmock.h>

#include "clc/api/api.hpp"
#include "clc/app/app.hpp"
#include "clc/app/safety.hpp"
#include "clc/app/setup.hpp"
#include "clc/store/catalogue.hpp"
#include "cli/commands/program.hpp"
#include "cli/init/definitions.hpp"
#include "common/base/limits.hpp"
#include "common/bus/amqp_connection_impl.hpp"
#include "common/msg/host_status.hpp"
#include "integration/bus/collector.hpp"
#include "integration/bus/test_broker.hpp"
#include "support/fault.hpp"

// clc as it is, with a real broker whose objects and rights are those that `educloud init` writes.

namespace educloud::test {
namespace {

using clc::DeadLetter;
using ::testing::HasSubstr;

nlohmann::json definitions() {
  cli::InitArguments arguments;
  arguments.host = "main";
  arguments.clusters = {"cc1"};
  arguments.nodes = {"nc1"};
  const auto plan = cli::make_plan(arguments);
  if (!plan) std::abort();
  std::map<std::string, std::string> passwords;
  for (const auto& user : plan->broker_users()) passwords[user] = user + "-password";
  auto out = cli::render_definitions(*plan, passwords);
  // Somebody past all rights: what a defect in a daemon of ours could do.
  out["users"].push_back({{"name", "defect"}, {"password", "defect-password"}, {"tags", ""}});
  out["permissions"].push_back(
      {{"user", "defect"}, {"vhost", "/"}, {"configure", "^$"}, {"write", "^.*$"}, {"read", "^$"}});
  return out;
}

class ClcBrokerTest : public ::testing::Test {
 protected:
  const clc::Principal admin{"admin", true};
  static inline TestBroker* broker = nullptr;

  static void SetUpTestSuite() {
    broker = new TestBroker(definitions(), {});
    for (const std::string user : {"clc", "cc-cc1", "nc-nc1", "walrus", "defect"})
      broker->write(user + ".secret", user + "-password\n", 0600);
  }
  static void TearDownTestSuite() {
    delete broker;
    broker = nullptr;
  }
  void SetUp() override {
    furnish();
    broker->write("data_key", std::string(64, 'd'), 0600);
    start();
  }
  void start() {
    clc::Config config;
    config.common.host = "main";
    config.common.state_dir = dir_.path();
    config.common.prefix = dir_.path();
    config.common.listen = config.common.advertise = "127.0.0.1";
    config.common.broker.port = broker->port();
    config.common.broker.user = "clc";
    config.common.broker.password_file = broker->file("clc.secret");
    config.walrus_url = "http://127.0.0.1:8001";
    config.data_key_file = broker->file("data_key");
    config.placement.max_cpu_usage = 100;
    config.backup.database = clc::database_file(dir_.path());
    auto app = clc::App::create(config, "1", [](clc::Cloud& cloud) { return clc::make_api(cloud); });
    ASSERT_TRUE(app) << app.error().message;
    app_ = std::move(*app);
    auto started = app_->start();
    ASSERT_TRUE(started) << started.error().message;
  }
  void TearDown() override {
    for (auto* one : {&cc_, &clc_}) {
      if (*one) (*one)->stop();
    }
    app_.reset();
  }

  void furnish() {
    auto store = clc::store::Store::open(clc::database_file(dir_.path()));
    ASSERT_TRUE(store) << store.error().message;
    const SystemClock clock;
    ASSERT_TRUE(clc::create_account(**store, clock, "admin", "correct horse", true));
    ASSERT_TRUE(clc::register_cluster(**store, "cc1"));
    ASSERT_TRUE(clc::register_node(**store, "nc1", "cc1"));
    ASSERT_TRUE((*store)->write([](clc::store::Sql& sql) -> Result<> {
      clc::Image image;
      image.imgid = kImage;
      image.name = "debian";
      image.owner = "admin";
      image.ostype = "linux";
      image.current_version = 1;
      image.next_version = 2;
      clc::store::add_image(sql, image);
      clc::Version version;
      version.imgid = kImage;
      version.version = 1;
      version.digest = std::string(64, 'a');
      version.size_bytes = 1 << 20;
      version.virtual_size_bytes = 1 << 24;
      clc::store::add_version(sql, version);
      return {};
    }));
  }

  /// The test as cc of cc1: reports itself and nc1, and treats commands as `decide` says.
  void play_cc(Deliveries& commands) {
    cc_ = bus::make_rabbit_bus(broker->options("cc-cc1"));
    cc_->subscribe({"cc_cmd_queue.cc1", 8, commands.sink()});
    cc_->start({});
    msg::CcStatus cc;
    cc.ccid = "cc#52:54:00:00:00:02#status";
    cc.host = "cc1";
    cc.net_data.ip0 = "127.0.0.1";
    msg::NodeStatus nc;
    nc.nid = "nc#52:54:00:00:00:01#status";
    nc.host = "nc1";
    nc.ccid = "cc1";
    nc.hardware_data = {8, 1, 64'000, 1000, 900'000, 1000};
    nc.net_data.ip0 = "127.0.0.1";
    publish("clc_status", "ccstatus.cc-cc1", msg::serialize(cc));
    publish("clc_status", "nodestatus.cc-cc1", msg::serialize(nc));
    ASSERT_TRUE(wait_until([&] {
      const auto node = app_->cloud().node(admin, "nc1");
      return node && node->alive;
    }));
  }
  void publish(const std::string& exchange, const std::string& key, const std::string& body) {
    ASSERT_TRUE(cc_->publish({exchange, key, body, "m", {}}, outcomes_.of("m")));
  }
  /// Past all rights and limits, without a user id.
  void publish_defect(const std::vector<std::pair<std::string, std::string>>& to, const std::string& body) {
    auto raw = bus::AmqpConnection::open(broker->options("defect"), "raw");
    ASSERT_TRUE(raw) << raw.error().message;
    ASSERT_TRUE((*raw)->open_channel(1));
    for (const auto& [exchange, key] : to) {
      ASSERT_EQ(amqp_basic_publish((*raw)->state(), 1, bus::bytes_of(exchange), bus::bytes_of(key), 0, 0,
                                   nullptr, bus::bytes_of(body)),
                AMQP_STATUS_OK);
    }
    (*raw)->close();
  }
  std::vector<DeadLetter> letters() {
    auto page = app_->cloud().safety().dead_letters(admin, {});
    EXPECT_TRUE(page) << page.error().message;
    return page ? page->items : std::vector<DeadLetter>{};
  }
  std::vector<DeadLetter> wait_for_letters(std::size_t count) {
    EXPECT_TRUE(wait_until([&] { return letters().size() >= count; }, std::chrono::seconds{60}));
    auto out = letters();
    EXPECT_EQ(out.size(), count);
    return out;
  }

  /// The command, which must end with `code`; what it prints.
  nlohmann::json educloud(const std::vector<std::string>& words, int code = 0) {
    std::vector<const char*> argv{"educloud", "--json"};
    for (const auto& word : words) argv.push_back(word.c_str());
    ::testing::internal::CaptureStdout();
    EXPECT_EQ(cli::run_program(static_cast<int>(argv.size()), argv.data()), code) << words[0] << words.back();
    return nlohmann::json::parse(::testing::internal::GetCapturedStdout(), nullptr, false);
  }

  static constexpr const char* kImage = "IMG00000001";
  educloud::testing::TempDir dir_;
  Outcomes outcomes_;
  std::unique_ptr<clc::App> app_;
  std::unique_ptr<bus::Bus> cc_, clc_;
};

TEST_F(ClcBrokerTest, PoisonForClcIsShownAfterItsFirstRefusal) {
  Deliveries commands;
  play_cc(commands);
  publish("clc_status", "taskstatus.cc-cc1", "{");
  publish("clc_status", "taskstatus.cc-cc1", R"({"type":"taskstatus","phase":7})");
  publish_defect({{"clc_status", "taskstatus.x"}}, R"({"type":"taskstatus"})");
  publish_defect({{"clc_status", "taskstatus.x"}}, std::string(10 << 20, 'x'));
  educloud::test::injected("poison", 4);
  const auto all = wait_for_letters(4);
  for (const auto& one : all) {
    EXPECT_EQ(one.reason, "rejected") << "not given back until the broker had enough";
    EXPECT_EQ(one.queue, "clc_status_queue");
    EXPECT_EQ(one.exchange, "clc_status");
  }
  const auto with = [&](const std::string& cause) {
    return std::count_if(all.begin(), all.end(),
                         [&](const DeadLetter& one) { return one.cause.find(cause) != std::string::npos; });
  };
  EXPECT_EQ(with("phase"), 1 + 1);  // of the wrong type; missing
  EXPECT_EQ(with("10485760 bytes"), 1);
  const auto large =
      std::find_if(all.begin(), all.end(), [](const DeadLetter& one) { return one.bytes > 1000; });
  ASSERT_NE(large, all.end());
  EXPECT_EQ(large->bytes, static_cast<std::int64_t>(limits::kMessageBytes)) << "its beginning";
  EXPECT_EQ(std::count_if(all.begin(), all.end(), [](const auto& one) { return one.sender == "cc-cc1"; }), 2);
}

TEST_F(ClcBrokerTest, ARefusedCommandIsRetriedAndReachesItsReaderAgain) {
  std::atomic<bool> refuse = true;
  Deliveries commands([&](const bus::Delivery&) -> std::optional<bus::Verdict> {
    return refuse ? bus::Verdict::reject : bus::Verdict::ack;  // leases too, which nobody needs to see
  });
  play_cc(commands);
  clc::NewVm request;
  request.imgid = kImage;
  const auto vm = app_->cloud().define_vm(admin, request);
  ASSERT_TRUE(vm) << vm.error().message;
  const auto task = app_->cloud().run_vm(admin, vm->instance.insid);
  ASSERT_TRUE(task) << task.error().message;
  const auto died = wait_for_letters(1).at(0);
  EXPECT_EQ(died.queue, "cc_cmd_queue.cc1");
  EXPECT_EQ(died.reason, "rejected");
  EXPECT_EQ(died.sender, "clc");
  EXPECT_THAT(died.cause, HasSubstr("refused by cc on cc1"));
  EXPECT_THAT(app_->cloud().safety().dead_letter(admin, died.id)->body, HasSubstr(task->task.tid));
  refuse = false;
  const auto before = commands.count();
  const auto retried = app_->cloud().safety().retry_dead_letter(admin, died.id);
  ASSERT_TRUE(retried) << retried.error().message;
  EXPECT_EQ(retried->outcome, "sent_again");
  const auto cmdid_of = [](const bus::Delivery& one) {
    const auto command = msg::parse<msg::Command>(one.body);  // or a lease
    return command ? command->cmdid : "";
  };
  const auto wanted = msg::parse<msg::Command>(app_->cloud().safety().dead_letter(admin, died.id)->body);
  ASSERT_TRUE(wanted) << wanted.error().message;
  EXPECT_TRUE(wait_until([&] {
    const auto all = commands.all();
    return std::any_of(all.begin() + static_cast<std::ptrdiff_t>(before), all.end(),
                       [&](const auto& one) { return cmdid_of(one) == wanted->cmdid; });
  }));
  EXPECT_GT(letters().at(0).retried_at, 0);
}

TEST_F(ClcBrokerTest, ACommandThatNobodyTookInTimeSaysWhoIsMissing) {
  clc_ = bus::make_rabbit_bus(broker->options("clc"));
  clc_->start({});
  msg::Command command;
  command.op = "image/prune";
  command.tid = std::string(kImage) + ":" + kImage + ":TMP00000001";
  command.cmdid = new_command_id().str();
  ASSERT_TRUE(wait_until([&] { return clc_->is_ready(); }));
  ASSERT_TRUE(
      clc_->publish({"walrus_cmd", "walrus", msg::serialize(command), "m", std::chrono::milliseconds{100}},
                    outcomes_.of("m")));
  const auto died = wait_for_letters(1).at(0);
  EXPECT_EQ(died.reason, "expired");
  EXPECT_EQ(died.queue, "walrus_cmd_queue");
  EXPECT_THAT(died.cause, HasSubstr("is walrus up"));
  EXPECT_EQ(app_->cloud().safety().retry_dead_letter(admin, died.id).error().code, ErrorCode::conflict);
}

TEST_F(ClcBrokerTest, TheCommandLineShowsRetriesDropsBacksUpAndRestores) {
  publish_defect({{"clc_status", "taskstatus.x"}}, "poison");
  const auto id = std::to_string(wait_for_letters(1).at(0).id);
  ::setenv("EDUCLOUD_TOKEN_FILE", (dir_ / "token").c_str(), 1);
  ::setenv("EDUCLOUD_URL", ("http://127.0.0.1:" + std::to_string(app_->port())).c_str(), 1);
  broker->write("password", "correct horse", 0600);
  educloud({"login", "--password-file", broker->file("password")});
  EXPECT_EQ(educloud({"dead-letter", "list"})["items"].size(), 1u);
  EXPECT_EQ(educloud({"dead-letter", "show", id})["body"], "poison");
  educloud({"dead-letter", "retry", id}, 5);
  EXPECT_EQ(educloud({"dead-letter", "drop", id})["dropped"], 1);
  educloud({"dead-letter", "drop", id}, 4);
  EXPECT_EQ(educloud({"dead-letter", "drop", "--all"})["dropped"], 0);
  const auto copy = (dir_ / "copy.sqlite").string();
  const auto made = educloud({"backup", "--to", copy});
  EXPECT_EQ(made["bytes"], std::filesystem::file_size(copy));
  educloud({"backup", "--to", copy}, 5);
  EXPECT_EQ(educloud({"backup", "--list"})["items"].size(), 2u);
  educloud({"restore", copy, "--state-dir", dir_.path().string()}, 5);
  app_.reset();
  EXPECT_EQ(educloud({"restore", copy, "--state-dir", dir_.path().string()})["images"], 1);
  start();
  ::setenv("EDUCLOUD_URL", ("http://127.0.0.1:" + std::to_string(app_->port())).c_str(), 1);
  educloud({"status"}, 3);
  educloud({"login", "--password-file", broker->file("password")});
  EXPECT_EQ(educloud({"status"})["images"], 1);
  ::unsetenv("EDUCLOUD_TOKEN_FILE");
  ::unsetenv("EDUCLOUD_URL");
}

TEST_F(ClcBrokerTest, NoneIsLostWhileClcIsAway) {
  app_.reset();
  publish_defect({{"clc_status", "taskstatus.x"}, {"dead_letter", "anything"}}, "poison");
  start();
  for (const auto& one : wait_for_letters(2)) {
    EXPECT_EQ(app_->cloud().safety().dead_letter(admin, one.id)->body, "poison");
    EXPECT_EQ(one.sender, "");
  }
}

}  // namespace
}  // namespace educloud::test
