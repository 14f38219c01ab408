#include "clc/store/snapshots.hpp"
#include "integration/clc/cloud_fixture.hpp"

namespace educloud::clc {
namespace {

using testing::HasSubstr;

class Snapshots : public CloudTest {
 protected:
  const Principal ann{"ann", false};

  void tune(CloudOptions& options) override { options.max_snapshots = 3; }

  void SetUp() override {
    CloudTest::SetUp();
    NewVm request;
    request.imgid = import("debian");
    const auto vm = cloud->define_vm(ann, request);
    ASSERT_TRUE(vm) << vm.error().message;
    insid_ = vm->instance.insid;
    tid_ = request.imgid + ":" + request.imgid + ":" + insid_;
    ASSERT_TRUE(cloud->run_vm(ann, insid_));
    bring_up();
  }
  /// The node's last word on the present operation.
  void say_done(Event event, const std::string& snapid, const std::string& errormsg = "") {
    auto status = answer(last(), event);
    status.final = 1;
    status.snapshot = snapid;
    status.errormsg = errormsg;
    tell(status);
  }
  std::string take(const std::string& name = "") {
    const auto made = cloud->take_snapshot(ann, insid_, {name, true});
    EXPECT_TRUE(made) << made.error().message;
    EXPECT_EQ(ops(), "snapshot/take");
    return made ? made->snapshot.snapid : "";
  }
  std::string taken(const std::string& name = "") {
    const auto snapid = take(name);
    say_done(Event::running, snapid);
    return snapid;
  }
  /// "NAME state, ..." of all.
  std::string all() {
    std::string out;
    const auto page = cloud->snapshots(ann, insid_);
    EXPECT_TRUE(page);
    for (const auto& one : page->items)
      out += (out.empty() ? "" : ", ") + one.snapshot.name + " " + one.state;
    return out;
  }
  std::string error_of(const std::string& snapid) {
    const auto page = cloud->snapshots(ann, insid_);
    for (const auto& one : page->items) {
      if (one.snapshot.snapid == snapid) return one.snapshot.error;
    }
    return "it is not there";
  }

  std::string insid_, tid_;
};

TEST_F(Snapshots, AreTakenRestoredAndDeleted) {
  const auto snapid = take("before the exam");
  EXPECT_EQ(last().snapshot, snapid);
  EXPECT_EQ(last().with_memory, 1);
  EXPECT_EQ(all(), "before the exam taking");
  auto half = answer(last(), Event::running);
  half.progress = 40;
  tell(half);
  EXPECT_EQ(all(), "before the exam taking");
  say_done(Event::running, snapid);
  EXPECT_EQ(all(), "before the exam ready");

  const auto task = cloud->restore_snapshot(ann, insid_, snapid);
  ASSERT_TRUE(task) << task.error().message;
  EXPECT_EQ(ops(), "snapshot/restore");
  EXPECT_EQ(last().snapshot, snapid);
  EXPECT_EQ(all(), "before the exam restoring");
  say_done(Event::running, snapid);
  EXPECT_EQ(all(), "before the exam ready");

  EXPECT_EQ(cloud->delete_snapshot(ann, insid_, snapid)->state, "deleting");
  EXPECT_EQ(ops(), "snapshot/delete");
  EXPECT_EQ(all(), "before the exam deleting");
  say_done(Event::running, snapid);
  EXPECT_EQ(all(), "");
}

TEST_F(Snapshots, ThatFailSayWhyAndCanBeDeleted) {
  const auto snapid = take("a");
  say_done(Event::refused, snapid, "no space on nc1");
  EXPECT_EQ(all(), "a failed");
  EXPECT_EQ(error_of(snapid), "no space on nc1");
  EXPECT_EQ(cloud->restore_snapshot(ann, insid_, snapid).error().code, ErrorCode::conflict);
  ASSERT_TRUE(cloud->delete_snapshot(ann, insid_, snapid));
  ops();
  say_done(Event::refused, snapid, "busy");
  EXPECT_EQ(all(), "a failed") << "a delete that was refused changes nothing";
}

TEST_F(Snapshots, ADamagedOneIsMarkedWhenAnOlderOneWasRestored) {
  const auto older = taken("older"), newer = taken("newer");
  ASSERT_TRUE(cloud->restore_snapshot(ann, insid_, newer));
  ops();
  say_done(Event::running, older);
  EXPECT_EQ(all(), "older ready, newer failed");
  EXPECT_THAT(error_of(newer), HasSubstr(older));
}

TEST_F(Snapshots, AreBoundedForEachInstance) {
  for (int i = 0; i < 3; ++i) taken();
  const auto refused = cloud->take_snapshot(ann, insid_, {});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::exhausted);
  EXPECT_THAT(refused.error().message, HasSubstr("max_snapshots"));
  EXPECT_EQ(ops(), "");
}

TEST_F(Snapshots, BelongToTheOwnerAndTheirInstance) {
  const auto snapid = taken();
  const Principal ben{"ben", false};
  EXPECT_EQ(cloud->snapshots(ben, insid_).error().code, ErrorCode::not_found);
  EXPECT_EQ(cloud->take_snapshot(ben, insid_, {}).error().code, ErrorCode::not_found);
  EXPECT_EQ(cloud->restore_snapshot(ben, insid_, snapid).error().code, ErrorCode::not_found);
  EXPECT_EQ(cloud->delete_snapshot(ben, insid_, snapid).error().code, ErrorCode::not_found);
  EXPECT_EQ(cloud->snapshots(admin, insid_)->items.size(), 1u);
  const auto other = define(cloud->vm(ann, insid_)->instance.imgid);
  EXPECT_EQ(cloud->delete_snapshot(admin, other, snapid).error().code, ErrorCode::not_found);
  EXPECT_EQ(cloud->restore_snapshot(ann, insid_, "snap-../../x").error().code, ErrorCode::invalid_argument);
}

TEST_F(Snapshots, EndWithTheDesktopsRun) {
  const auto snapid = taken("a"), second = taken("b");
  ASSERT_TRUE(cloud->stop_vm(ann, insid_));
  ops();
  say(Event::stopped);
  EXPECT_THAT(cloud->restore_snapshot(ann, insid_, snapid).error().message, HasSubstr("begins anew"));
  EXPECT_EQ(cloud->take_snapshot(ann, insid_, {}).error().code, ErrorCode::conflict);
  EXPECT_EQ(cloud->delete_snapshot(ann, insid_, second)->state, "deleted") << "there is nothing to ask";
  EXPECT_EQ(ops(), "");
  EXPECT_EQ(all(), "a ready");
  ASSERT_TRUE(cloud->run_vm(ann, insid_));
  EXPECT_EQ(all(), "");
}

TEST_F(Snapshots, AStopMeanwhileEndsThem) {
  const auto snapid = take("a");
  ASSERT_TRUE(cloud->stop_vm(ann, insid_));
  EXPECT_EQ(ops(), "image/stop");
  EXPECT_EQ(all(), "a failed");
  EXPECT_THAT(error_of(snapid), HasSubstr("interrupted"));
}

TEST_F(Snapshots, AGuestThatEndsMeanwhileMakesNone) {
  const auto snapid = take("a");
  auto status = answer(last(), Event::stopped);
  status.final = 1;
  tell(status);
  EXPECT_EQ(cloud->vm(ann, insid_)->state, "stopped");
  EXPECT_EQ(all(), "a failed");
  EXPECT_FALSE(error_of(snapid).empty());
}

TEST_F(Snapshots, ANodeThatIsSilentMakesNone) {
  const auto snapid = take("a");
  advance(11 * 60);
  EXPECT_EQ(all(), "a failed");
  EXPECT_THAT(error_of(snapid), HasSubstr("no answer"));
  EXPECT_EQ(at(tid_), "editing/running+") << "the VM runs on";
}

TEST_F(Snapshots, SurviveARestartOfClcWhileTheyAreTaken) {
  const auto snapid = take("a");
  const auto command = last();
  halt();
  boot();
  beat();
  EXPECT_EQ(all(), "a taking");
  auto status = answer(command, Event::running);
  status.final = 1;
  status.snapshot = snapid;
  tell(status);
  EXPECT_EQ(all(), "a ready");
}

TEST_F(Snapshots, OfAnImageThatIsEditedLastThroughItsStops) {
  const auto task = cloud->modify_image(admin, cloud->vm(ann, insid_)->instance.imgid, {});
  ASSERT_TRUE(task) << task.error().message;
  bring_up();
  const std::string insid = task->task.insid;
  const auto made = cloud->take_snapshot(admin, insid, {"before the update", false});
  ASSERT_TRUE(made) << made.error().message;
  ASSERT_EQ(ops(), "snapshot/take");
  say_done(Event::running, made->snapshot.snapid);
  ASSERT_TRUE(cloud->stop_task(admin, task->task.tid));
  ops();
  say(Event::stopped);
  EXPECT_EQ(cloud->take_snapshot(admin, insid, {"", true}).error().key, "memory");
  ASSERT_TRUE(cloud->restore_snapshot(admin, insid, made->snapshot.snapid));
  ASSERT_EQ(ops(), "snapshot/restore");
  say_done(Event::stopped, made->snapshot.snapid);
  EXPECT_EQ(at(task->task.tid), "editing/stopped");
  ASSERT_TRUE(cloud->start_task(admin, task->task.tid));
  EXPECT_EQ(cloud->snapshots(admin, insid)->items.size(), 1u);
}

}  // namespace
}  // namespace educloud::clc
