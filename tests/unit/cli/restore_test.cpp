#include <gmock/gmock.h>

#include "clc/app/setup.hpp"
#include "clc/store/backup.hpp"
#include "clc/store/store.hpp"
#include "cli/commands/program.hpp"
#include "common/base/clock.hpp"
#include "support/temp_dir.hpp"

namespace educloud::cli {
namespace {

namespace fs = std::filesystem;

class RestoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    add_account("first");
    ASSERT_TRUE(clc::store::copy_database(database_, backup_));
    add_account("second");
  }
  void add_account(const std::string& name) {
    auto store = clc::store::Store::open(database_);
    ASSERT_TRUE(store) << store.error().message;
    ASSERT_TRUE(clc::create_account(**store, SystemClock(), name, "correct horse", true));
  }
  std::int64_t accounts() {
    auto store = clc::store::Store::open(database_);
    EXPECT_TRUE(store) << store.error().message;
    if (!store) return -1;
    return *(*store)->read([](clc::store::Sql& sql) -> Result<std::int64_t> {
      return sql.number("SELECT COUNT(*) FROM accounts");
    });
  }
  /// Its exit code; `out` is what it prints.
  int run(std::vector<std::string> words, nlohmann::json& out) {
    std::vector<const char*> argv{"educloud", "--json"};
    for (const auto& word : words) argv.push_back(word.c_str());
    ::testing::internal::CaptureStdout();
    ::testing::internal::CaptureStderr();
    const int code = run_program(static_cast<int>(argv.size()), argv.data());
    out = nlohmann::json::parse(::testing::internal::GetCapturedStdout(), nullptr, false);
    ::testing::internal::GetCapturedStderr();
    return code;
  }

  educloud::testing::TempDir dir_;
  fs::path database_ = dir_ / "clc.sqlite", backup_ = dir_ / "copy.sqlite";
};

TEST_F(RestoreTest, BringsABackupBackByTheConfigOrTheDirectory) {
  nlohmann::json out;
  ASSERT_EQ(run({"restore", backup_.string(), "--state-dir", dir_.path().string()}, out), 0) << out.dump();
  EXPECT_EQ(out["accounts"], 1);
  EXPECT_EQ(out["database"], database_.string());
  EXPECT_TRUE(fs::exists(std::string(out["set_aside"])));
  EXPECT_EQ(accounts(), 1);
  // Back to what there was.
  const std::string aside = out["set_aside"];
  const auto config = dir_.write("clc.conf", "state_dir = \"" + dir_.path().string() + "\"\n");
  ASSERT_EQ(run({"restore", aside, "--config", config.string()}, out), 0) << out.dump();
  EXPECT_EQ(accounts(), 2);
}

TEST_F(RestoreTest, TellsWhyNotByItsExitCode) {
  nlohmann::json out;
  EXPECT_EQ(run({"restore", (dir_ / "none").string(), "--state-dir", dir_.path().string()}, out), 4);
  auto running = clc::store::Store::open(database_);
  ASSERT_TRUE(running);
  EXPECT_EQ(run({"restore", backup_.string(), "--state-dir", dir_.path().string()}, out), 5);
  EXPECT_EQ(out["error"]["code"], "conflict");
  running->reset();
  EXPECT_EQ(accounts(), 2);
}

TEST(DeadLetterCommand, DropWantsOneOrAll) {
  for (const auto& words :
       std::vector<std::vector<const char*>>{{"educloud", "dead-letter", "show"},
                                             {"educloud", "dead-letter", "retry", "x"},
                                             {"educloud", "dead-letter", "drop", "-3"},
                                             {"educloud", "backup", "--list", "--to", "x"}}) {
    ::testing::internal::CaptureStdout();
    ::testing::internal::CaptureStderr();
    EXPECT_EQ(run_program(static_cast<int>(words.size()), words.data()), 2);
    ::testing::internal::GetCapturedStdout();
    ::testing::internal::GetCapturedStderr();
  }
}

}  // namespace
}  // namespace educloud::cli
