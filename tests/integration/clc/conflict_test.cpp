#include "integration/clc/cloud_fixture.hpp"

namespace educloud::clc {
namespace {

using testing::HasSubstr;

/// Two people who change one image at the same time.
class Conflict : public CloudTest {
 protected:
  void SetUp() override {
    CloudTest::SetUp();
    imgid = import("debian");
    first = changed();
    second = changed();
  }
  /// A modify of the version in use whose VM has been stopped.
  std::string changed() {
    const auto task = cloud->modify_image(admin, imgid, {});
    EXPECT_TRUE(task) << task.error().message;
    bring_up();
    EXPECT_TRUE(cloud->stop_task(admin, task->task.tid));
    ops();
    say(Event::stopped);
    return task->task.tid;
  }
  void submit(const std::string& tid, bool replace = false) {
    const auto task = cloud->submit_task(admin, tid, replace);
    ASSERT_TRUE(task) << task.error().message;
    ASSERT_EQ(ops(), "image/submit");
  }
  int current() { return cloud->image(admin, imgid)->image.current_version; }

  std::string imgid, first, second;
};

TEST_F(Conflict, TheSecondIsToldBeforeAnythingIsSentAndMayReplace) {
  submit(first);
  say_submitted('b');
  ops();
  say(Event::deleted);
  ASSERT_EQ(current(), 2);
  const auto refused = cloud->submit_task(admin, second);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::conflict);
  for (const char* part : {"version 1", "version 2", "on_conflict=replace", "cancel"})
    EXPECT_THAT(refused.error().message, HasSubstr(part));
  EXPECT_EQ(ops(), "");
  EXPECT_EQ(at(second), "editing/stopped") << "nothing is lost";
  submit(second, true);
  EXPECT_EQ(last().if_current, "");
  EXPECT_EQ(last().target_version, 3);
  EXPECT_TRUE(cloud->task(admin, second)->task.replace);
  say_submitted('c');
  ops();
  say(Event::deleted);
  EXPECT_EQ(current(), 3);
  EXPECT_EQ(cloud->versions(admin, imgid)->items.size(), 3u);
  EXPECT_EQ(cloud->versions(admin, imgid)->items[2].version.parent, 1);
  ASSERT_TRUE(cloud->rollback_image(admin, imgid, 2)) << "the other one is still there";
}

TEST_F(Conflict, TwoInFlightEndWithOneRefusedByWalrus) {
  submit(first);
  const auto of_first = last();
  submit(second);
  const auto of_second = last();
  EXPECT_EQ(of_first.if_current, imgid + "/1");
  EXPECT_EQ(of_second.if_current, imgid + "/1");
  auto published = answer(of_first, Event::submitted);
  published.receipt = receipt(of_first, 'b');
  tell(published);
  EXPECT_EQ(at(first), "submitting/done+");
  auto refused = answer(of_second, Event::failed);
  refused.errormsg = "walrus: not the version in use";
  tell(refused);
  EXPECT_EQ(at(second), "submitting/init!");
  const auto text = cloud->task(admin, second)->task.errormsg;
  for (const char* part : {"version 1", "version 2", "on_conflict=replace", "walrus: not the version in use"})
    EXPECT_THAT(text, HasSubstr(part));
  EXPECT_EQ(cloud->submit_task(admin, second).error().code, ErrorCode::conflict);
  ops();
  submit(second, true);
  say_submitted('c');
  EXPECT_EQ(current(), 4) << "the number of the refused try is not given again";
}

TEST_F(Conflict, OfTwoPublishedOutOfOrderTheLaterIsInUse) {
  submit(first, true);
  const auto of_first = last();
  submit(second, true);
  say_submitted('c');
  auto published = answer(of_first, Event::submitted);
  published.receipt = receipt(of_first, 'b');
  tell(published);
  EXPECT_EQ(at(first), "submitting/done+");
  EXPECT_EQ(current(), 3);
  EXPECT_EQ(cloud->versions(admin, imgid)->items.size(), 3u);
}

TEST_F(Conflict, AFailureForAnotherReasonKeepsItsText) {
  submit(first);
  say(Event::failed, "the cc is full");
  EXPECT_EQ(cloud->task(admin, first)->task.errormsg, "the cc is full");
}

TEST_F(Conflict, ARollbackInBetweenIsAConflictToo) {
  submit(first);
  say_submitted('b');
  ops();
  say(Event::deleted);
  ASSERT_TRUE(cloud->cancel_task(admin, second));
  ops();
  say(Event::deleted);
  const auto third = changed();
  ASSERT_TRUE(cloud->rollback_image(admin, imgid, 1));
  ops();
  say(Event::submitted);
  ASSERT_EQ(current(), 1);
  EXPECT_THAT(cloud->submit_task(admin, third).error().message, HasSubstr("version 2"));
}

}  // namespace
}  // namespace educloud::clc
