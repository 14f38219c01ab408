// The real daemon against a real broker, killed at the worst moments.
#include <fcntl.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "integration/bus/test_broker.hpp"
#include "integration/walrus/fixture.hpp"
#include "support/fault.hpp"
#include "support/paths.hpp"

namespace educloud::walrus {
namespace {

nlohmann::json definitions() {
  const auto exchange = [](const char* name, const char* type) {
    return nlohmann::json{{"name", name},
                          {"vhost", "/"},
                          {"type", type},
                          {"durable", true},
                          {"auto_delete", false},
                          {"internal", false},
                          {"arguments", nlohmann::json::object()}};
  };
  const auto queue = [](const char* name) {
    return nlohmann::json{{"name", name},
                          {"vhost", "/"},
                          {"durable", true},
                          {"auto_delete", false},
                          {"arguments", {{"x-queue-type", "quorum"}, {"x-delivery-limit", 20}}}};
  };
  const auto bind = [](const char* from, const char* to, const char* key) {
    return nlohmann::json{{"source", from},     {"vhost", "/"},
                          {"destination", to},  {"destination_type", "queue"},
                          {"routing_key", key}, {"arguments", nlohmann::json::object()}};
  };
  return {{"exchanges", {exchange("walrus_cmd", "direct"), exchange("clc_status", "topic")}},
          {"queues", {queue("walrus_cmd_queue"), queue("clc_status_queue")}},
          {"bindings",
           {bind("walrus_cmd", "walrus_cmd_queue", "walrus"),
            bind("clc_status", "clc_status_queue", "taskstatus.#")}}};
}

/// educloud-walrus as a child of the test.
class Daemon {
 public:
  explicit Daemon(const std::filesystem::path& config, const std::filesystem::path& log) {
    const std::string program = test::binary_dir() / "bin/educloud-walrus";
    std::string word = "--config";
    std::string file = config.string();
    std::string name = program;
    char* argv[] = {name.data(), word.data(), file.data(), nullptr};
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 2, log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (::posix_spawn(&pid_, program.c_str(), &actions, nullptr, argv, environ) != 0) std::abort();
    posix_spawn_file_actions_destroy(&actions);
  }
  ~Daemon() {
    if (pid_ > 0) end(SIGKILL);
  }
  /// Sends the signal and returns the wait status.
  int end(int signal) {
    int status = 0;
    ::kill(pid_, signal);
    ::waitpid(pid_, &status, 0);
    pid_ = 0;
    return status;
  }

 private:
  pid_t pid_ = 0;
};

class WalrusProcess : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    broker_ = std::make_unique<test::TestBroker>(
        definitions(), std::vector<test::TestBroker::User>{{"walrus", "^clc_status$", "^walrus_cmd_queue$"},
                                                           {"clc", "^walrus_cmd$", "^clc_status_queue$"}});
  }
  static void TearDownTestSuite() { broker_.reset(); }

  void SetUp() override {
    port_ = test::free_port();
    url_ = "http://127.0.0.1:" + std::to_string(port_);
    const auto key = dir_.write("data.key", kKey + "\n");
    ::chmod(key.c_str(), 0600);
    config_ = dir_.write("walrus.conf", "host = \"walrus1\"\nprefix = \"" + (dir_ / "storage").string() +
                                            "\"\nstate_dir = \"" + (dir_ / "state").string() +
                                            "\"\nlisten = \"127.0.0.1\"\nport = " + std::to_string(port_) +
                                            "\ndata_key_file = \"" + key.string() +
                                            "\"\nsweep_interval_s = 1\nsweep_grace_s = 1\n[broker]\nport = " +
                                            std::to_string(broker_->port()) +
                                            "\nuser = \"walrus\"\npassword_file = \"" +
                                            broker_->file("walrus.secret") + "\"\n");
    clc_ = bus::make_rabbit_bus(broker_->options("clc"));
    clc_->subscribe({"clc_status_queue", 64, [this](bus::Delivery delivery) {
                       if (auto status = msg::parse<msg::TaskStatus>(delivery.body)) {
                         EXPECT_EQ(delivery.routing_key, "taskstatus.walrus");
                         EXPECT_EQ(delivery.user_id, "walrus");
                         const std::lock_guard lock(mutex_);
                         statuses_.push_back(*status);
                       }
                       delivery.settle(bus::Verdict::ack);
                     }});
    clc_->start({});
    start();
  }
  void TearDown() override {
    daemon_.reset();
    clc_->stop();
    if (HasFailure()) std::cout << educloud::testing::slurp(dir_ / "log");
  }
  void start() { daemon_ = std::make_unique<Daemon>(config_, dir_ / "log"); }
  void kill() { EXPECT_TRUE(WIFSIGNALED(daemon_->end(SIGKILL))); }

  std::optional<msg::TaskStatus> last(const std::string& cmdid) {
    const std::lock_guard lock(mutex_);
    std::optional<msg::TaskStatus> found;
    for (const auto& one : statuses_) {
      if (one.cmdid == cmdid && (!found || one.seq > found->seq)) found = one;
    }
    return found;
  }
  msg::Command expect_import() {
    auto command = make_command("image/import");
    bus::Outgoing out;
    out.exchange = "walrus_cmd";
    out.routing_key = "walrus";
    out.body = msg::serialize(command);
    out.msgid = command.cmdid;
    EXPECT_TRUE(clc_->publish(std::move(out), [](bus::Outcome) {}).has_value());
    EXPECT_TRUE(eventually([&] { return last(command.cmdid).has_value(); }));
    return command;
  }
  /// Incompressible, so that a conversion takes a while.
  std::filesystem::path disk(std::size_t mib) {
    const auto file = dir_ / "disk.raw";
    run({"dd", "if=/dev/urandom", "of=" + file.string(), "bs=1M", "count=" + std::to_string(mib),
         "status=none"});
    return file;
  }
  bool is_published(int version) const {
    return std::filesystem::exists(storage() / "images" / kImage / "versions" / std::to_string(version) /
                                   "manifest");
  }
  std::filesystem::path storage() const { return dir_ / "storage"; }
  std::string content(int version) {
    const auto file = dir_ / "exported";
    std::filesystem::remove(file);
    auto done = export_version({storage(), kImage, version, file});
    EXPECT_TRUE(done.has_value()) << done.error().message;
    return educloud::testing::slurp(file);
  }
  void expect_sound() {
    auto report = fsck({storage()});
    ASSERT_TRUE(report.has_value()) << report.error().message;
    for (const auto& damage : report->damages) ADD_FAILURE() << damage.id << ": " << damage.what;
  }
  /// Bytes that all packs occupy.
  std::uint64_t stored() const {
    std::uint64_t sum = 0;
    std::error_code gone;
    for (const auto& entry : std::filesystem::directory_iterator(storage() / "chunks/packs", gone)) {
      struct stat info {};
      if (::stat(entry.path().c_str(), &info) == 0) sum += static_cast<std::uint64_t>(info.st_blocks) * 512;
    }
    return sum;
  }
  bool prune(std::vector<int> versions) {
    auto command = make_command("image/prune");
    command.versions = std::move(versions);
    bus::Outgoing out;
    out.exchange = "walrus_cmd";
    out.routing_key = "walrus";
    out.body = msg::serialize(command);
    out.msgid = command.cmdid;
    if (!clc_->publish(std::move(out), [](bus::Outcome) {})) return false;
    return eventually([&] { return last(command.cmdid) && last(command.cmdid)->final == 1; }) &&
           last(command.cmdid)->failed == 0;
  }
  void expect_published(const msg::Command& command, const Result<std::string>& receipt,
                        const std::filesystem::path& file) {
    ASSERT_TRUE(receipt.has_value()) << receipt.error().message;
    EXPECT_TRUE(eventually([&] { return last(command.cmdid) && last(command.cmdid)->final == 1; }));
    EXPECT_EQ(last(command.cmdid)->event, "submitted");
    EXPECT_EQ(last(command.cmdid)->receipt, *receipt);
    const auto disk = educloud::testing::slurp(file);
    EXPECT_TRUE(content(1) == disk);
    for (const char* folder : {"tmp/staging", "tmp/publish", "tmp/trash"}) {
      EXPECT_TRUE(std::filesystem::is_empty(storage() / folder)) << folder;
    }
    const int status = daemon_->end(SIGTERM);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
    EXPECT_TRUE(std::filesystem::exists(storage() / "config/metrics/walrus.prom"));
    daemon_.reset();
    expect_sound();
  }
  void wait_until_it_answers() {
    ASSERT_TRUE(eventually([&] {
      return http::Client(*http::Url::parse(url_)).send({"GET", "/health"}).has_value();
    }));
  }

  static std::unique_ptr<test::TestBroker> broker_;
  educloud::testing::TempDir dir_;
  int port_ = 0;
  std::string url_;
  std::filesystem::path config_;
  std::unique_ptr<bus::Bus> clc_;
  std::unique_ptr<Daemon> daemon_;
  std::mutex mutex_;
  std::vector<msg::TaskStatus> statuses_;
};

std::unique_ptr<test::TestBroker> WalrusProcess::broker_;

TEST_F(WalrusProcess, KilledInTheMiddleOfAConversionCompletes) {
  const auto command = expect_import();
  const auto file = disk(400);
  const auto image = dir_ / "disk.qcow2";
  run({"qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2", file.string(), image.string()});
  Result<std::string> receipt = "";
  std::jthread client(
      [&] { receipt = transfer::upload_version(make_upload(url_, image, 1, "user", "qcow2")); });
  // qemu-img has begun to write its output.
  const auto staging = dir_ / "storage/tmp/staging";
  ASSERT_TRUE(eventually([&] {
    std::error_code gone;
    for (const auto& entry : std::filesystem::directory_iterator(staging, gone)) {
      if (std::filesystem::exists(entry.path() / "output", gone)) return true;
    }
    return false;
  }));
  kill();
  EXPECT_FALSE(is_published(1)) << "nothing half is visible";
  start();
  client.join();
  expect_published(command, receipt, file);
}

TEST_F(WalrusProcess, KilledAgainAndAgainWhileChunksAreStoredCompletes) {
  const auto command = expect_import();
  const auto file = disk(400);
  Result<std::string> receipt = "";
  std::jthread client([&] { receipt = transfer::upload_version(make_upload(url_, file, 1, "user", "raw")); });
  for (const std::uint64_t mib : {1, 60, 150, 300}) {
    ASSERT_TRUE(eventually([&] { return stored() > (mib << 20) || is_published(1); }));
    kill();
    start();
  }
  client.join();
  expect_published(command, receipt, file);
}

TEST_F(WalrusProcess, KilledAnywhereKeepsWhatItAnswered) {
  // Submits and prunes go on, sweeps run each second, and the daemon is killed at random moments.
  std::mt19937 random(20260101);
  auto disk = noise(24 << 20, 1);
  std::map<int, std::string> answered;
  std::atomic<int> begun = 0;
  std::jthread submitter([&] {
    for (int version = 1; version <= 12; ++version) {
      begun = version;
      for (int i = 0; i < 40; ++i) disk[random() % disk.size()] ^= 1;
      const CutDisk cut(disk);
      const auto parent = version > 1 ? transfer::make_parent(kImage, version - 1) : "";
      EXPECT_TRUE(eventually([&] {
        return submit_disk(url_, cut, version, parent, parent).receipt.has_value();
      })) << "version "
          << version;
      answered[version] = disk;
      if (version % 3 != 0) continue;
      EXPECT_TRUE(prune({version - 2}));
      answered.erase(version - 2);
    }
  });
  std::mt19937 moment(42);
  for (const int version : {1, 3, 5, 7, 9, 11}) {
    ASSERT_TRUE(eventually([&] { return begun >= version; }));
    // The moment of the kill within the submit is the point here, not an event.
    std::this_thread::sleep_for(std::chrono::milliseconds(moment() % 80));
    kill();
    educloud::test::injected("daemon-killed");
    start();
    wait_until_it_answers();
  }
  submitter.join();
  kill();
  start();
  wait_until_it_answers();
  EXPECT_EQ(answered.size(), 8u);
  for (const auto& [version, wanted] : answered) EXPECT_TRUE(content(version) == wanted) << version;
  expect_sound();
  // All but the last: then the store is about as large as it alone.
  EXPECT_TRUE(prune({2, 3, 5, 6, 8, 9, 11}));
  EXPECT_TRUE(eventually([&] { return stored() < (25u << 20); })) << stored();
  EXPECT_TRUE(content(12) == disk);
  expect_sound();
}

TEST_F(WalrusProcess, KilledWhileReceivingCompletes) {
  const auto command = expect_import();
  const auto file = disk(64);
  auto request = make_upload(url_, file, 1, "user", "raw");
  request.piece_bytes = 2 << 20;
  std::atomic<bool> under_way = false;
  Result<std::string> receipt = "";
  std::jthread client([&] {
    receipt = transfer::upload_version(request, [&](const transfer::Progress& progress) {
      if (progress.bytes_done > 0) under_way = true;
    });
  });
  ASSERT_TRUE(eventually([&] { return under_way.load(); }));
  for (int i = 0; i < 2; ++i) {
    kill();
    educloud::test::injected("transfer-cut");
    start();
    ASSERT_TRUE(eventually([&] {
      return http::Client(*http::Url::parse(url_)).send({"GET", "/health"}).has_value();
    }));
  }
  client.join();
  expect_published(command, receipt, file);
}

TEST_F(WalrusProcess, BrokerKilledInBetweenHearsOfTheEnd) {
  const auto command = expect_import();
  const auto file = disk(16);
  broker_->kill();
  educloud::test::injected("broker-killed");
  auto receipt = transfer::upload_version(make_upload(url_, file, 1, "user", "raw"));
  broker_->start();
  expect_published(command, receipt, file);
}

TEST(WalrusProgram, BadConfigurationEndsWithTwo) {
  educloud::testing::TempDir dir;
  const auto config = dir.write("walrus.conf", "host = \"w\"\nunknown_key = 1\n");
  sys::ProcessOptions options;
  options.argv = {test::binary_dir() / "bin/educloud-walrus", "--config", config.string(), "--check-config"};
  auto result = sys::run(options);
  ASSERT_TRUE(result.has_value()) << result.error().message;
  EXPECT_EQ(result->exit_code, 2);
  EXPECT_NE(result->err.find("walrus.conf"), std::string::npos) << result->err;
  options.argv[2] = test::source_dir() / "config/walrus.conf";
  result = sys::run(options);
  EXPECT_EQ(result->exit_code, 0) << result->err;
}

}  // namespace
}  // namespace educloud::walrus
