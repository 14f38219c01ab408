#include "clc/store/backup.hpp"

#include <SQLiteCpp/SQLiteCpp.h>
#include <gmock/gmock.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>

#include "clc/store/accounts.hpp"
#include "clc/store/backup_names.hpp"
#include "clc/store/database_file.hpp"
#include "clc/store/migrations.hpp"
#include "clc/store/store.hpp"
#include "clc/store/tasks.hpp"
#include "support/temp_dir.hpp"

namespace educloud::clc::store {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

constexpr std::int64_t kNow = 1'795'244'935'123;  // 2026-11-21 07:08:55.123 UTC
constexpr const char* kTid = "IMG00000001:IMG00000001:VD00000001";

class BackupTest : public ::testing::Test {
 protected:
  fs::path file() const { return dir_.path() / "clc.sqlite"; }
  fs::path copy() const { return dir_.path() / "copy.sqlite"; }

  std::unique_ptr<Store> open() {
    auto opened = Store::open(file());
    EXPECT_TRUE(opened) << opened.error().message;
    return opened ? std::move(*opened) : nullptr;
  }
  /// Two things in one transaction: where one is, the other is.
  static Result<> add(Store& store, const std::string& name, std::size_t ballast = 10) {
    return store.write([&](Sql& sql) -> Result<> {
      add_account(sql, {name, false, "x", 1});
      add_outbox(sql, {0, "cc_cmd", "cc1", std::string(ballast, 'x'), "m-" + name, 0}, 1);
      return {};
    });
  }
  static std::int64_t count(const fs::path& file, const std::string& what) {
    SQLite::Database db(file.string(), SQLite::OPEN_READONLY, 5000);
    return db.execAndGet("SELECT COUNT(*) FROM " + what).getInt64();
  }
  /// An account, an image, a task that is open and one that has ended; a login.
  static void furnish(Store& store) {
    auto done = store.write([](Sql& sql) -> Result<> {
      add_account(sql, {"root", true, "x", 1});
      add_token(sql, std::string(64, 'a'), "root", 1, kNow * 2);
      Image image;
      image.imgid = "IMG00000001";
      image.name = "debian";
      image.owner = "root";
      image.ostype = "linux";
      add_image(sql, image);
      put_cluster(sql, "cc1");
      add_node(sql, "nc1", "cc1");
      Task task;
      task.tid = kTid;
      task.insid = "VD00000001";
      task.owner = "root";
      task.created_at = 1;
      task.id = add_task(sql, task);
      task.epoch = 4;
      task.state = {task::Phase::editing, task::State::running};
      update_task(sql, task);
      task.tid = "IMG00000001:IMG00000001:VD00000002";
      task.insid = "VD00000002";
      task.id = add_task(sql, task);
      task.state = {task::Phase::submitting, task::State::gone};
      update_task(sql, task);
      return {};
    });
    ASSERT_TRUE(done) << done.error().message;
  }
  /// Names of what lies in the folder that neither is a database nor belongs to one.
  std::vector<std::string> leftovers() const {
    std::vector<std::string> out;
    for (const auto& one : fs::recursive_directory_iterator(dir_.path())) {
      const std::string name = one.path().filename().string();
      if (name.starts_with(".")) out.push_back(name);
    }
    return out;
  }

  educloud::testing::TempDir dir_;
};

TEST_F(BackupTest, IsOfOneMomentWhileTheWriterGoesOn) {
  auto store = open();
  for (int i = 0; i < 300; ++i) ASSERT_TRUE(add(*store, "a" + std::to_string(i), 60'000));
  std::atomic<bool> stop = false;
  std::atomic<int> written = 0;
  std::thread writer([&] {
    for (int i = 0; !stop; ++i) written += add(*store, "b" + std::to_string(i)) ? 1 : 0;
  });
  while (written == 0) std::this_thread::yield();
  const int before = written;
  const auto made = copy_database(file(), copy());
  const int after = written;
  stop = true;
  writer.join();
  ASSERT_TRUE(made) << made.error().message;
  EXPECT_GT(after, before) << "the copy held the writer up";
  const auto accounts = count(copy(), "accounts");
  EXPECT_EQ(accounts, count(copy(), "outbox")) << "half a transaction";
  EXPECT_GE(accounts, 300 + before);
  EXPECT_LE(accounts, 301 + after);
  EXPECT_EQ(made->bytes, static_cast<std::int64_t>(fs::file_size(copy())));
  struct stat info {};
  ASSERT_EQ(::stat(copy().c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  EXPECT_FALSE(fs::exists(copy().string() + "-wal")) << "everything is in the one file";
  EXPECT_THAT(leftovers(), ::testing::IsEmpty());
}

TEST_F(BackupTest, NeverWritesOverAFileAndLeavesNothingWhenItFails) {
  auto store = open();
  std::ofstream(copy()) << "precious";
  const auto over = copy_database(file(), copy());
  ASSERT_FALSE(over);
  EXPECT_EQ(over.error().code, ErrorCode::conflict);
  EXPECT_EQ(fs::file_size(copy()), 8u);
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(add(*store, "a" + std::to_string(i), 60'000));
  std::stop_source stop;
  stop.request_stop();
  const auto stopped = copy_database(file(), dir_.path() / "other.sqlite", stop.get_token());
  ASSERT_FALSE(stopped);
  EXPECT_EQ(stopped.error().code, ErrorCode::unavailable);
  EXPECT_FALSE(fs::exists(dir_.path() / "other.sqlite"));
  EXPECT_EQ(copy_database(dir_.path() / "none.sqlite", dir_.path() / "x.sqlite").has_value(), false);
  EXPECT_THAT(leftovers(), ::testing::IsEmpty());
}

TEST_F(BackupTest, ARestoreBringsBackAccountsImagesAndOpenTasks) {
  auto store = open();
  furnish(*store);
  ASSERT_TRUE(copy_database(file(), copy()));
  ASSERT_TRUE(add(*store, "later"));
  const auto early = restore_database(file(), copy(), kNow);
  ASSERT_FALSE(early);
  EXPECT_EQ(early.error().code, ErrorCode::conflict) << "its clc runs";
  store.reset();

  const auto done = restore_database(file(), copy(), kNow);
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_EQ(done->accounts, 1);
  EXPECT_EQ(done->images, 1);
  EXPECT_EQ(done->open_tasks, 1);
  EXPECT_EQ(done->set_aside.filename(), "clc.sqlite.before-restore-20261121T070855.123Z");
  EXPECT_EQ(count(done->set_aside, "accounts"), 2) << "nothing of what was there is lost";
  store = open();
  const auto found = store->read([](Sql& sql) -> Result<> {
    EXPECT_TRUE(find_account(sql, "root"));
    EXPECT_FALSE(find_account(sql, "later"));
    EXPECT_EQ(find_image(sql, "IMG00000001")->name, "debian");
    const auto running = open_task(sql, kTid);
    EXPECT_EQ(running->epoch, 4) << "its node knows the present command by that";
    EXPECT_EQ(running->state.state, task::State::running);
    EXPECT_GT(find_task(sql, "IMG00000001:IMG00000001:VD00000002")->epoch, 1000);
    EXPECT_GT(sql.number("SELECT lease_epoch FROM nodes"), 1000);
    EXPECT_EQ(sql.number("SELECT COUNT(*) FROM tokens"), 0) << "a login ended since would come back";
    EXPECT_EQ(sql.number("SELECT COUNT(*) FROM audit WHERE action = 'restore'"), 1);
    return {};
  });
  ASSERT_TRUE(found) << found.error().message;
  EXPECT_THAT(leftovers(), ::testing::IsEmpty());
  store.reset();

  std::ofstream(file(), std::ios::in | std::ios::out) << std::string(4096, 'x');
  ASSERT_TRUE(restore_database(file(), copy(), kNow + 1)) << "over a damaged one";
  fs::remove(file());
  ASSERT_TRUE(restore_database(file(), copy(), kNow + 2)) << "where none is left";
  EXPECT_EQ(count(file(), "accounts"), 1);
}

TEST_F(BackupTest, RefusesWhatIsNoGoodBackup) {
  auto store = open();
  furnish(*store);
  ASSERT_TRUE(add(*store, "present"));
  ASSERT_TRUE(copy_database(file(), copy()));
  store.reset();
  const auto bad = dir_.path() / "bad.sqlite";
  const auto refused = [&](ErrorCode code, const std::string& text) {
    const auto done = restore_database(file(), bad, kNow);
    ASSERT_FALSE(done) << text;
    EXPECT_EQ(done.error().code, code) << done.error().message;
    EXPECT_THAT(done.error().message, HasSubstr(text));
    EXPECT_EQ(count(file(), "accounts"), 2) << "the present one is untouched";
  };
  refused(ErrorCode::not_found, "bad.sqlite");
  std::ofstream(bad) << std::string(8192, 'x');
  refused(ErrorCode::corrupt, "is damaged");
  fs::copy_file(copy(), bad, fs::copy_options::overwrite_existing);
  fs::resize_file(bad, fs::file_size(bad) - 8192);
  refused(ErrorCode::corrupt, "is damaged");
  fs::copy_file(copy(), bad, fs::copy_options::overwrite_existing);
  SQLite::Database(bad.string(), SQLite::OPEN_READWRITE).exec("PRAGMA user_version = 999");
  refused(ErrorCode::invalid_argument, "made by a newer version");
  fs::remove(bad);
  SQLite::Database(bad.string(), SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE).exec("CREATE TABLE t (x)");
  refused(ErrorCode::invalid_argument, "is not a database of clc");
  fs::copy_file(copy(), bad, fs::copy_options::overwrite_existing);
  std::ofstream(bad.string() + "-wal") << "x";
  refused(ErrorCode::invalid_argument, "write-ahead log");
  EXPECT_THAT(leftovers(), ::testing::IsEmpty());
}

// Whenever it is killed: the database is there, whole, and the old or the new one.
TEST_F(BackupTest, ARestoreThatIsKilledLeavesOneOfTheTwo) {
  auto store = open();
  furnish(*store);
  for (int i = 0; i < 30; ++i) ASSERT_TRUE(add(*store, "a" + std::to_string(i), 60'000));
  ASSERT_TRUE(copy_database(file(), copy()));
  store.reset();
  int old = 0, fresh = 0;
  for (int round = 0; round < 40; ++round) {
    store = open();
    ASSERT_TRUE(store);
    ASSERT_TRUE(add(*store, "round" + std::to_string(round)));
    store.reset();
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) ::_exit(restore_database(file(), copy(), kNow + round) ? 0 : 1);
    ::usleep(static_cast<useconds_t>(round) * 3000);  // anywhere in it, from the beginning to past its end
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    store = open();
    ASSERT_TRUE(store) << "round " << round;
    const auto has_round = store->read([&](Sql& sql) -> Result<bool> {
      return find_account(sql, "round" + std::to_string(round)).has_value();
    });
    ASSERT_TRUE(has_round);
    (*has_round ? old : fresh) += 1;
    store.reset();
  }
  ASSERT_TRUE(restore_database(file(), copy(), kNow + 100));
  EXPECT_THAT(leftovers(), ::testing::IsEmpty()) << "of those that were killed";
  RecordProperty("old", old);
  RecordProperty("fresh", fresh);
  EXPECT_EQ(old + fresh, 40);
}

TEST_F(BackupTest, AMigrationComesAfterACopy) {
  {
    SQLite::Database db(file().string(), SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE);
    for (const auto& step : migrations().first(4)) db.exec(std::string(step.sql));
    db.exec("PRAGMA user_version = 4");
    db.exec("INSERT INTO clusters VALUES ('cc1')");
    db.exec("INSERT INTO nodes VALUES ('nc1', 'cc1', 0)");
  }
  auto store = open();
  ASSERT_TRUE(store);
  const auto state = store->read(
      [](Sql& sql) -> Result<std::string> { return sql.one("SELECT state FROM nodes")->text(0); });
  EXPECT_EQ(*state, "no_new");
  store.reset();
  const auto copies = list_backups(backup_folder(file()));
  ASSERT_EQ(copies.size(), 1u);
  EXPECT_EQ(copies[0].kind, "before_migration");
  EXPECT_THAT(copies[0].file.filename().string(), HasSubstr("before-migration-4-"));
  EXPECT_EQ(*check_database(copies[0].file, true), 4);
  EXPECT_EQ(count(copies[0].file, "nodes WHERE enabled = 0"), 1);
  open();
  EXPECT_EQ(list_backups(backup_folder(file())).size(), 1u) << "nothing to migrate, nothing to copy";

  fs::remove(file());
  const auto gone = Store::open(file());
  ASSERT_FALSE(gone);
  EXPECT_THAT(gone.error().message, HasSubstr("educloud restore " + copies[0].file.string()));
  ASSERT_TRUE(restore_database(file(), copies[0].file, kNow)) << "an older schema is brought up to date";
  EXPECT_TRUE(open());
}

TEST_F(BackupTest, ADamagedDatabaseIsNotServedAndSaysWhatToDo) {
  auto store = open();
  for (int i = 0; i < 200; ++i) ASSERT_TRUE(add(*store, "a" + std::to_string(i), 2000));
  const auto backup = backup_folder(file()) / backup_name(kRegular, kNow);
  ASSERT_TRUE(copy_database(file(), backup));
  store.reset();
  {
    std::fstream stream(file(), std::ios::in | std::ios::out | std::ios::binary);
    stream.seekp(static_cast<std::streamoff>(fs::file_size(file()) / 2 / 4096 * 4096));
    stream << std::string(4096, 'x');
  }
  const auto opened = Store::open(file());
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, ErrorCode::corrupt);
  EXPECT_THAT(opened.error().message, HasSubstr("educloud restore " + backup.string()));
}

TEST(BackupNames, AreReadBack) {
  EXPECT_EQ(backup_name(kRegular, kNow), "clc-20261121T070855.123Z.sqlite");
  educloud::testing::TempDir dir;
  for (const auto* name :
       {"clc-20261121T070855.123Z.sqlite", "before-migration-4-20251121T070855.000Z.sqlite",
        "clc-20261399T070855.123Z.sqlite", "clc-20261121T070855.123Z.sqlite.old", "clc-x.sqlite", "notes.txt",
        ".clc-20261121T070855.123Z.sqlite.ab.tmp"})
    std::ofstream(dir.path() / name) << "123";
  const auto found = list_backups(dir.path());
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].kind, "before_migration");
  EXPECT_EQ(found[1].at, kNow);
  EXPECT_EQ(found[1].bytes, 3);
  EXPECT_THAT(list_backups(dir.path() / "none"), ::testing::IsEmpty());
}

TEST(BackupNames, TheNewestAndOneOfEachDayStay) {
  constexpr std::int64_t kHour = 3'600'000;
  std::vector<BackupFile> files;
  for (int i = 0; i < 24 * 10; ++i)
    files.push_back({"r" + std::to_string(i), "regular", kNow / (24 * kHour) * 24 * kHour + i * kHour, 1});
  for (int i = 0; i < 7; ++i)
    files.insert(files.begin(), {"m" + std::to_string(i), "before_migration", i, 1});
  const auto gone = outdated_backups(files, 16, 7, 5);
  std::set<std::string> left;
  for (const auto& one : files) left.insert(one.file.string());
  for (const auto& one : gone) EXPECT_EQ(left.erase(one.file.string()), 1u);
  EXPECT_EQ(left.size(), 16u + 6 + 5);  // the last day's own is among the newest
  for (int day = 3; day < 10; ++day) EXPECT_TRUE(left.contains("r" + std::to_string(day * 24 + 23))) << day;
  EXPECT_TRUE(outdated_backups({}, 16, 7, 5).empty());
}

}  // namespace
}  // namespace educloud::clc::store
