#include "walrus/domain/commands.hpp"

#include <gtest/gtest.h>

#include "common/task/table.hpp"
#include "support/paths.hpp"
#include "walrus/app/config.hpp"
#include "walrus/domain/news.hpp"

namespace educloud::walrus {
namespace {

msg::Command command(const std::string& op) {
  msg::Command out;
  out.op = op;
  out.tid = "IMG01234567:IMG01234567:TMP89abcdef";
  out.cmdid = "01890a5d-ac96-774b-bcce-b302099a8057";
  out.target_imgid = "IMG01234567";
  out.target_version = 2;
  out.versions = {1, 3};
  return out;
}

std::string key_of(const msg::Command& one) {
  auto order = check_command(one);
  return order ? "" : order.error().key;
}

TEST(Commands, EachOperationIsKnown) {
  EXPECT_EQ(check_command(command("image/import"))->operation, Operation::import);
  EXPECT_EQ(check_command(command("image/use"))->operation, Operation::use);
  EXPECT_EQ(check_command(command("image/prune"))->operation, Operation::prune);
  EXPECT_EQ(check_command(command("image/delete"))->operation, Operation::remove);
  EXPECT_EQ(check_command(command("task/delete"))->operation, Operation::forget);
  EXPECT_EQ(key_of(command("image/run")), "op");
}

TEST(Commands, ABlankDiskHasRoomForAFileSystem) {
  auto one = command("image/blank");
  one.disk_bytes = 16 << 20;
  EXPECT_EQ(check_command(one)->operation, Operation::blank);
  EXPECT_EQ(check_command(one)->disk_bytes, 16 << 20);
  for (const std::int64_t bytes :
       {std::int64_t{0}, std::int64_t{16 << 20} - 512, (std::int64_t{1} << 30) + 1}) {
    one.disk_bytes = bytes;
    EXPECT_EQ(key_of(one), "disk_bytes") << bytes;
  }
  one.disk_bytes = 1 << 30;
  one.target_version = 0;
  EXPECT_EQ(key_of(one), "target_version");
}

TEST(Commands, BadPartsAreNamed) {
  auto one = command("image/import");
  one.tid = "IMG01234567:../x:TMP89abcdef";
  EXPECT_EQ(key_of(one), "tid");
  one = command("image/import");
  one.cmdid = std::string(36, 'x');
  EXPECT_EQ(key_of(one), "cmdid");
  for (const char* imgid : {"", "IMG0123456", "IMG0123456Z", "../../../x"}) {
    one = command("image/use");
    one.target_imgid = imgid;
    EXPECT_EQ(key_of(one), "target_imgid") << imgid;
  }
  one = command("image/import");
  one.target_version = 0;
  EXPECT_EQ(key_of(one), "target_version");
  one = command("image/prune");
  one.versions = {1, 0};
  EXPECT_EQ(key_of(one), "versions");
  one.versions = {};
  EXPECT_EQ(key_of(one), "versions");
}

TEST(Commands, VersionInUseIsNotPruned) {
  const auto order = *check_command(command("image/prune"));
  EXPECT_TRUE(check_prune(order, std::nullopt).has_value());
  EXPECT_TRUE(check_prune(order, 2).has_value());
  auto refused = check_prune(order, 3);
  ASSERT_FALSE(refused.has_value());
  EXPECT_NE(refused.error().message.find("version 3"), std::string::npos);
}

TEST(Admission, UserNeedsAnImportThatWaits) {
  const Request request{"IMG01234567", 1, true, ""};
  EXPECT_EQ(admit(request, {}).error().code, ErrorCode::unavailable) << "its command may be under way";
  EXPECT_EQ(admit(request, {std::nullopt, std::nullopt, true}).error().code, ErrorCode::conflict);
  EXPECT_EQ(*admit(request, {"the-import", std::nullopt}), "the-import");
  EXPECT_EQ(admit(request, {"the-import", "digest"}).error().code, ErrorCode::conflict);
  EXPECT_EQ(admit({"IMG01234567", 1, true, "another"}, {"the-import", std::nullopt}).error().key, "cmdid");
}

TEST(Admission, HostsSendChunksNotFiles) {
  EXPECT_EQ(admit({"IMG01234567", 1, false, "c"}, {}).error().code, ErrorCode::permission_denied);
}

TEST(Admission, TakenNumberIsNamedWithItsDigest) {
  auto refused = admit({"IMG01234567", 1, true, ""}, {"the-import", "theirs"});
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::conflict);
  for (const char* part : {"IMG01234567", "version 1", "theirs"}) {
    EXPECT_NE(refused.error().message.find(part), std::string::npos) << part;
  }
}

TEST(News, EveryOneIsATransitionOfTheTable) {
  const task::TaskState init{task::Phase::submitting, task::State::init};
  const task::TaskState uploading{task::Phase::submitting, task::State::uploading};
  for (auto from : {init, uploading}) {
    for (auto stage : {Stage::waiting, Stage::receiving, Stage::processing}) {
      const auto news = import_news(stage, "", 1, 2);
      const auto row = task::step(from, news.event);
      ASSERT_TRUE(row.has_value());
      EXPECT_EQ(row->to, news.at);
    }
    for (const auto& news : {success_news("", ""), failure_news({ErrorCode::corrupt, "x"})}) {
      const auto row = task::step(from, news.event);
      ASSERT_TRUE(row.has_value());
      EXPECT_EQ(row->to, news.at);
      EXPECT_TRUE(news.final);
    }
  }
  for (auto from : {task::TaskState{task::Phase::submitting, task::State::done},
                    task::TaskState{task::Phase::editing, task::State::deleting}}) {
    EXPECT_TRUE(task::step(from, deleted_news().event).has_value());
  }
}

TEST(News, PercentIsNeverOutOfRange) {
  EXPECT_EQ(percent(0, 0), 0);
  EXPECT_EQ(percent(5, 10), 50);
  EXPECT_EQ(percent(20, 10), 100);
  EXPECT_EQ(percent(UINT64_MAX, UINT64_MAX), 100);
}

TEST(Config, ExampleIsValid) {
  auto config = load_config(test::source_dir() / "config/walrus.conf");
  ASSERT_TRUE(config.has_value()) << config.error().message;
  EXPECT_EQ(config->common.port, 8001);
  EXPECT_EQ(config->common.broker.user, "walrus");
  EXPECT_EQ(config->sweep_interval_s, 3600);
  EXPECT_EQ(config->sweep_grace_s, 3600);
}

}  // namespace
}  // namespace educloud::walrus
