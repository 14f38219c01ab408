#include "clc/store/backup.hpp"

#include <fstream>

#include "clc/app/safety.hpp"
#include "integration/clc/cloud_fixture.hpp"

namespace educloud::clc {
namespace {

using testing::HasSubstr;

class CloudBackup : public CloudTest {
 protected:
  void tune(CloudOptions& options) override {
    options.backup.database = folder_ / "clc.sqlite";
    options.backup.keep = 3;
    options.backup.keep_days = 1;
  }
};

// The school's Monday: a backup, work after it, the disk of clc lost, the backup restored.
TEST_F(CloudBackup, ARestoredCloudGoesOnWithItsAccountsImagesAndOpenTasks) {
  const auto imgid = import("debian");
  const auto insid = define(imgid);
  const auto idle = define(imgid);
  const auto task = cloud->run_vm(admin, insid);
  ASSERT_TRUE(task);
  EXPECT_EQ(ops(), "image/prepare");
  const auto prepare = last();
  const auto session = cloud->login("ann", "correct horse", "test");
  ASSERT_TRUE(session) << session.error().message;
  const auto made = cloud->safety().back_up(admin);
  ASSERT_TRUE(made) << made.error().message;
  EXPECT_GT(made->bytes, 10'000);
  EXPECT_EQ(cloud->status(admin)->backup_at, clock.wall_ms());

  say(Event::prepared);
  EXPECT_EQ(ops(), "image/run");
  say(Event::running);
  ASSERT_TRUE(create_account(*store, clock, "late", "correct horse", false));
  import("windows");
  clock.advance(std::chrono::hours{1});
  halt();
  ASSERT_TRUE(store::restore_database(folder_ / "clc.sqlite", made->file, clock.wall_ms()));
  boot();
  beat();

  EXPECT_FALSE(cloud->authenticate(session->token)) << "a login ended since would come back";
  EXPECT_TRUE(cloud->login("ann", "correct horse", "test"));
  EXPECT_FALSE(cloud->login("late", "correct horse", "test"));
  ASSERT_EQ(cloud->images(admin, {})->items.size(), 1u);
  EXPECT_EQ(cloud->image(admin, imgid)->state, "ready");
  EXPECT_EQ(at(task->task.tid), "preparing/init");
  EXPECT_EQ(cloud->vm(admin, idle)->state, "defined");
  // The node is further than the cloud remembers: the command again, and it repeats what it is at.
  advance(1);
  const auto asked = ops();
  EXPECT_THAT(asked, HasSubstr("image/prepare"));
  auto answered = answer(prepare, Event::prepared);
  answered.seq += 1000;
  tell(answered);
  EXPECT_THAT(ops(), HasSubstr("image/run"));
  say(Event::running);
  EXPECT_EQ(at(task->task.tid), "editing/running+");
}

TEST_F(CloudBackup, OldCopiesGoAndOneAtATimeIsMade) {
  for (int i = 0; i < 6; ++i) {
    ASSERT_TRUE(cloud->safety().back_up(admin));
    clock.advance(std::chrono::minutes{15});
  }
  const auto page = cloud->safety().backups(admin);
  ASSERT_TRUE(page);
  ASSERT_EQ(page->items.size(), 3u);
  EXPECT_GT(page->items[0].at, page->items[2].at) << "newest first";
  EXPECT_EQ(page->items[0].kind, "regular");
  clock.jump_wall(-std::chrono::hours{1});
  EXPECT_TRUE(cloud->safety().back_up(admin)) << "a clock set back stops nothing";
}

TEST_F(CloudBackup, TheTimerMakesTheFirstOneByItself) {
  BackupOptions options;
  options.database = folder_ / "clc.sqlite";
  options.first = std::chrono::milliseconds{1};
  Backups backups(options, clock);
  backups.start();
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds{60};
  while (backups.list().empty() && std::chrono::steady_clock::now() < until)
    std::this_thread::sleep_for(std::chrono::milliseconds{5});
  EXPECT_EQ(backups.list().size(), 1u);
  backups.stop();
  EXPECT_FALSE(backups.make()) << "it has ended";

  Backups next(options, clock);
  next.start();
  next.stop();  // the next is due in 15 minutes, so this is at once
  EXPECT_EQ(next.list().size(), 1u) << "a restart does not make one more";
}

TEST_F(CloudBackup, AFailureIsToldAndTriedAgain) {
  // Where the folder should be there is a file.
  std::ofstream(folder_ / "backups") << "x";
  const auto made = cloud->safety().back_up(admin);
  ASSERT_FALSE(made);
  std::filesystem::remove(folder_ / "backups");
  EXPECT_TRUE(cloud->safety().back_up(admin));
}

}  // namespace
}  // namespace educloud::clc
