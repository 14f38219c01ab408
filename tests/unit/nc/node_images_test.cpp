#include "unit/nc/node_fixture.hpp"

namespace educloud::nc {
namespace {

using ::testing::HasSubstr;

TEST_F(NodeTest, AModifyKeepsItsChangesUntilItIsSubmitted) {
  ask("image/prepare", kModify);
  ask("image/run", kModify);
  EXPECT_EQ(ask("image/submit", kModify).failed, 1);  // still runs
  EXPECT_THAT(told_.back().errormsg, HasSubstr("still runs"));
  ask("image/stop", kModify);
  EXPECT_TRUE(std::filesystem::exists(overlay(kModify)));
  ask("image/run", kModify);
  EXPECT_EQ(images_->overlays, 1);
  ask("image/stop", kModify);
  auto submit = command("image/submit", kModify);
  submit.if_current = "IMG00000001/3";
  auto submitted = ask(submit);
  EXPECT_EQ(submitted.event, "submitted");
  EXPECT_EQ(submitted.receipt, "receipt");
  EXPECT_EQ(submitted.phase, "submitting");
  EXPECT_EQ(submitted.state, "done");
  EXPECT_THAT(submitted.prompt, HasSubstr("1.0 MiB changed, 512.0 KiB sent"));
  ASSERT_EQ(images_->submits.size(), 1u);
  EXPECT_EQ(images_->submits[0].parent_version, 3);
  EXPECT_EQ(images_->submits[0].target_version, 4);
  EXPECT_EQ(images_->submits[0].if_current, "IMG00000001/3");
  EXPECT_EQ(images_->submits[0].changed, std::vector{overlay(kModify)});
  ask("task/delete", kModify);
  EXPECT_FALSE(std::filesystem::exists(vm_folder(kModify)));
}

TEST_F(NodeTest, AModifyStaysOnTheVersionItBeganWith) {
  ask("image/prepare", kModify);
  ask("image/run", kModify);
  ask("image/stop", kModify);
  auto newer = command("image/run", kModify);
  newer.source->version = 5;
  EXPECT_THAT(ask(newer).errormsg, HasSubstr("stand on version 3"));
}

TEST_F(NodeTest, ABuildWorksOnAnOverlayOfItsOwn) {
  EXPECT_EQ(ask("image/prepare", kBuild).event, "prepared");
  const auto machine = prefix_ / "tmp/images/IMG00000002/machine";
  EXPECT_TRUE(std::filesystem::exists(machine));
  ask("image/run", kBuild);
  const auto spec = hypervisor_.spec(vm(kBuild));
  ASSERT_EQ(spec->disk.size(), 4u);
  EXPECT_EQ(spec->disk[1].file, machine);
  EXPECT_EQ(spec->disk[2].file, prefix_ / "images/IMG00000001/versions/3/machine");
  ask("image/stop", kBuild);
  ask("image/prepare", kBuild);  // start again
  EXPECT_EQ(images_->overlays, 2);
  EXPECT_EQ(ask("image/submit", kBuild).event, "submitted");
  EXPECT_EQ(images_->submits.at(0).target_imgid, "IMG00000002");
  EXPECT_EQ(images_->submits[0].parent_imgid, "IMG00000001");
  EXPECT_EQ(images_->submits[0].changed, (std::vector{overlay(kBuild), machine}));
  EXPECT_EQ(images_->in_use, (Versions{{"IMG00000001", 3}})) << "the build stands on it";
  ask("task/delete", kBuild);
  EXPECT_FALSE(std::filesystem::exists(prefix_ / "tmp/images/IMG00000002"));
  EXPECT_EQ(images_->in_use, Versions{});
}

TEST_F(NodeTest, ASubmitThatCameSecondIsToldItsChoice) {
  ask("image/prepare", kModify);
  ask("image/run", kModify);
  ask("image/stop", kModify);
  images_->submit_error = Error{ErrorCode::conflict, "IMG00000001/4 is in use, not IMG00000001/3", {}};
  auto submit = command("image/submit", kModify);
  submit.if_current = "IMG00000001/3";
  auto refused = ask(submit);
  EXPECT_EQ(refused.failed, 1);
  EXPECT_THAT(refused.errormsg, HasSubstr("IMG00000001/4 is in use"));
  EXPECT_THAT(refused.errormsg, HasSubstr("on_conflict=replace"));
  EXPECT_TRUE(std::filesystem::exists(overlay(kModify)));
  EXPECT_EQ(ask("image/submit", kModify).event, "submitted");
}

TEST_F(NodeTest, ALazyDesktopStartsOnASocketAndThenOnTheFile) {
  auto prepare = command("image/prepare", kDesktop);
  prepare.lazy = 1;
  EXPECT_EQ(ask(prepare).event, "prepared");
  EXPECT_EQ(images_->fetches, 0);
  auto run = command("image/run", kDesktop);
  run.lazy = 1;
  ASSERT_EQ(ask(run).event, "running");
  EXPECT_EQ(images_->lazies, 1);
  const auto socket = vm_folder(kDesktop) / "disk.nbd";
  auto spec = hypervisor_.spec(vm(kDesktop));
  ASSERT_EQ(spec->disk.size(), 2u);
  EXPECT_EQ(spec->disk[1], (DiskLayer{socket, "raw", true}));
  EXPECT_TRUE(std::filesystem::is_socket(socket));
  EXPECT_EQ(images_->in_use, (Versions{{"IMG00000001", 3}}));
  boot();  // the guest lives on and waits for its socket
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds{30};
  while (!std::filesystem::is_socket(socket) && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::yield();
  }
  EXPECT_TRUE(std::filesystem::is_socket(socket));
  EXPECT_EQ(images_->last_request.grant, "node=nc1&expires=1&sig=x");
  ask("image/stop", kDesktop);
  EXPECT_FALSE(std::filesystem::exists(socket));
  images_->arrive("IMG00000001", 3);
  auto again = command("image/run", kDesktop);
  again.lazy = 1;
  ASSERT_EQ(ask(again).event, "running");
  EXPECT_FALSE(hypervisor_.spec(vm(kDesktop))->disk[1].is_nbd);
}

TEST_F(NodeTest, ALazyDesktopTakesTheVersionOfItsLastPrepare) {
  auto prepare = command("image/prepare", kDesktop);
  prepare.lazy = 1;
  EXPECT_EQ(ask(prepare).event, "prepared");
  auto run = command("image/run", kDesktop);
  run.lazy = 1;
  run.source->version = 4;
  EXPECT_EQ(ask(run).event, "running");
  EXPECT_EQ(images_->last_request.version, 4);
}

TEST_F(NodeTest, ALazyModifyWaitsForItsBaseBeforeItIsSubmitted) {
  auto run = command("image/run", kModify);
  run.lazy = 1;
  ASSERT_EQ(ask(run).event, "running");
  ask("image/stop", kModify);
  EXPECT_EQ(ask("image/submit", kModify).event, "submitted");
  EXPECT_EQ(images_->fetches, 1);
}

TEST_F(NodeTest, WhatIsPushedAheadOfTimeIsNotKeptForAnybody) {
  auto push = command("image/prepare", "IMG00000001:IMG00000001:TMP0000f00d");
  push.priority = "prefetch";
  push.runtime_option.reset();
  EXPECT_EQ(ask(push).event, "prepared");
  EXPECT_EQ(images_->last_request.priority, transfer::Priority::prefetch);
  EXPECT_EQ(images_->in_use, Versions{});
}

TEST_F(NodeTest, AFullDiskLosesCachedVersionsThatNothingUses) {
  ask("image/prepare", kDesktop);
  ask("image/run", kDesktop);
  images_->evictable_bytes = 10ull << 30;
  const auto prepare = [&](const char* tid, int version) {
    images_->free_bytes = 1 << 20;
    auto one = command("image/prepare", tid);
    one.source->version = version;
    EXPECT_EQ(ask(one).event, "prepared");
    return *images_->kept;
  };
  EXPECT_EQ(prepare(kModify, 4), (Versions{{"IMG00000001", 3}, {"IMG00000001", 4}}));
  ask("image/stop", kDesktop);
  EXPECT_EQ(prepare(kBuild, 5), (Versions{{"IMG00000001", 4}, {"IMG00000001", 5}}))
      << "a stopped desktop needs none";
}

TEST_F(NodeTest, ARelativeThatIsHereNeedsNoRoomForAllOfIt) {
  images_->relatives = {{"IMG00000001", 2, std::string(64, 'c')}};
  images_->free_bytes = (1ull << 30) + 500;
  images_->fetch_error = Error{ErrorCode::exhausted, "disk full", {}};
  EXPECT_EQ(ask("image/prepare", kDesktop).event, "prepared") << "room was made after all";
  EXPECT_EQ(images_->fetches, 2);
  EXPECT_TRUE(images_->kept);
}

TEST_F(NodeTest, ASubmitThatFailedIsDoneAgain) {
  ask("image/prepare", kModify);
  ask("image/run", kModify);
  ask("image/stop", kModify);
  images_->submit_error = Error{ErrorCode::unavailable, "cc is away", {}};
  EXPECT_EQ(ask("image/submit", kModify).state, "init");
  EXPECT_EQ(ask("image/submit", kModify).event, "submitted");
}

}  // namespace
}  // namespace educloud::nc
