// Migration, backup and restore of clc's database: all or nothing, and kept once told.
#include <SQLiteCpp/SQLiteCpp.h>

#include "clc/store/accounts.hpp"
#include "clc/store/backup.hpp"
#include "clc/store/backup_names.hpp"
#include "clc/store/database_file.hpp"
#include "clc/store/migrations.hpp"
#include "clc/store/store.hpp"
#include "integration/power/cuts.hpp"

namespace educloud::clc::store {
namespace {

namespace fs = std::filesystem;
using educloud::testing::cut_often;
using educloud::testing::DiskRecorder;
using educloud::testing::dump_database;
using educloud::testing::expect_all_recorded;

constexpr std::int64_t kNow = 1'795'244'935'123;

std::unique_ptr<Store> open(const fs::path& file) {
  StoreOptions options;
  options.writer_thread = false;
  auto opened = Store::open(file, options);
  EXPECT_TRUE(opened) << opened.error().message;
  return opened ? std::move(*opened) : nullptr;
}

void add_accounts(Store& store, const std::string& prefix, int count) {
  for (int i = 0; i < count; ++i) {
    const auto done = store.write([&](Sql& sql) -> Result<> {
      add_account(sql, {prefix + std::to_string(i), false, std::string(1500, 'h'), 1});
      return {};
    });
    ASSERT_TRUE(done) << done.error().message;
  }
}

/// What each file in the folder of backups holds; all of them must be whole.
std::vector<std::string> contents_of_backups(const fs::path& database) {
  std::vector<std::string> out;
  for (const auto& one : list_backups(backup_folder(database))) {
    const auto schema = check_database(one.file, true);
    EXPECT_TRUE(schema) << one.file << ": " << schema.error().message;
    out.push_back(dump_database(one.file));
  }
  return out;
}

class PowerStore : public ::testing::Test {
 protected:
  void SetUp() override { fs::create_directory(folder()); }
  fs::path folder() const { return directory_ / "disk"; }
  fs::path file() const { return folder() / "clc.sqlite"; }
  const educloud::testing::TempDir directory_;
};

TEST_F(PowerStore, AMigrationThatIsCutGoesOnAndHasItsCopy) {
  {
    SQLite::Database db(file().string(), SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE);
    for (const auto& step : migrations().first(4)) db.exec(std::string(step.sql));
    db.exec("PRAGMA user_version = 4");
    db.exec("INSERT INTO clusters VALUES ('cc1')");
    for (int i = 0; i < 50; ++i)
      db.exec("INSERT INTO nodes VALUES ('nc" + std::to_string(i) + "', 'cc1', " + std::to_string(i % 2) +
              ")");
  }
  const auto old = dump_database(file());
  DiskRecorder recorder(folder());
  ASSERT_TRUE(open(file()));
  const auto recording = recorder.stop();
  expect_all_recorded(recording, folder());
  const auto fresh = dump_database(file());
  int unfinished = 0;
  for (const auto seed : educloud::testing::lives(1)) {
    SCOPED_TRACE("EDUCLOUD_POWER_SEED=" + std::to_string(seed));
    cut_often(recording, seed, 200, [&](const fs::path& disk, std::size_t position) {
      const auto database = disk / "clc.sqlite";
      const auto found = dump_database(database);
      const auto copies = contents_of_backups(database);
      EXPECT_THAT(copies, ::testing::Each(old));
      EXPECT_TRUE(found == old || !copies.empty()) << "changed without a copy";
      if (position == recording.ops.size()) {
        EXPECT_EQ(found, fresh) << "clc was told that it is open";
      }
      unfinished += found == fresh ? 0 : 1;
      ASSERT_TRUE(open(database));
      EXPECT_EQ(dump_database(database), fresh);
    });
  }
  EXPECT_GT(unfinished, 20);
}

TEST_F(PowerStore, ABackupIsThereWholeOrNotAtAll) {
  for (const auto seed : educloud::testing::lives(2)) {
    SCOPED_TRACE("EDUCLOUD_POWER_SEED=" + std::to_string(seed));
    auto store = open(file());
    ASSERT_TRUE(store);
    add_accounts(*store, "old" + std::to_string(seed) + "-", 30);
    DiskRecorder recorder(folder());
    std::vector<std::pair<std::size_t, std::string>> told;
    for (int i = 0; i < 3; ++i) {
      add_accounts(*store, "a" + std::to_string(seed * 10 + static_cast<std::uint64_t>(i)) + "-", 5);
      const auto target =
          backup_folder(file()) / backup_name(kRegular, kNow + static_cast<std::int64_t>(seed) * 10 + i);
      const auto made = copy_database(file(), target);
      ASSERT_TRUE(made) << made.error().message;
      told.emplace_back(recorder.position(), target.filename().string());
    }
    const auto recording = recorder.stop();
    expect_all_recorded(recording, folder());
    std::map<std::string, std::string> contents;
    for (const auto& [position, name] : told) contents[name] = dump_database(backup_folder(file()) / name);
    cut_often(recording, seed, 100, [&](const fs::path& disk, std::size_t position) {
      const auto backups = backup_folder(disk / "clc.sqlite");
      contents_of_backups(disk / "clc.sqlite");
      for (const auto& [at, name] : told) {
        if (fs::exists(backups / name)) {
          EXPECT_EQ(dump_database(backups / name), contents[name]);
        } else {
          EXPECT_LT(position, at) << name << " was told to be there";
        }
      }
      EXPECT_TRUE(open(disk / "clc.sqlite"));
    });
  }
}

TEST_F(PowerStore, ARestoreThatIsCutLeavesTheOldOrTheNew) {
  for (const auto seed : educloud::testing::lives(2)) {
    SCOPED_TRACE("EDUCLOUD_POWER_SEED=" + std::to_string(seed));
    auto store = open(file());
    ASSERT_TRUE(store);
    const auto mark = std::to_string(seed);
    add_accounts(*store, "kept" + mark + "-", 30);
    const auto backup = backup_folder(file()) / backup_name(kRegular, kNow + static_cast<std::int64_t>(seed));
    ASSERT_TRUE(copy_database(file(), backup));
    add_accounts(*store, "later" + mark + "-", 30);
    store.reset();
    const auto old = dump_database(file());
    DiskRecorder recorder(folder());
    const auto restored = restore_database(file(), backup, kNow);
    ASSERT_TRUE(restored) << restored.error().message;
    const auto recording = recorder.stop();
    expect_all_recorded(recording, folder());
    const auto fresh = dump_database(file());
    int olds = 0, news = 0;
    cut_often(recording, seed, 150, [&](const fs::path& disk, std::size_t position) {
      const auto database = disk / "clc.sqlite";
      const auto found = dump_database(database);
      EXPECT_TRUE(found == old || found == fresh) << found.substr(0, 500);
      (found == old ? olds : news) += 1;
      if (position == recording.ops.size()) {
        EXPECT_EQ(found, fresh);
      }
      if (found == fresh) {
        const auto aside = disk / restored->set_aside.filename();
        EXPECT_EQ(dump_database(aside), old) << "nothing of what was there is lost";
      }
      EXPECT_TRUE(open(database));
    });
    EXPECT_GT(olds, 10);
    EXPECT_GT(news, 2);
    fs::remove(restored->set_aside);
  }
}

}  // namespace
}  // namespace educloud::clc::store
