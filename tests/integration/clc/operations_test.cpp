#include "integration/clc/cloud_fixture.hpp"

// Pause, resume, restart, limits and first boot; VM and OS types.

namespace educloud::clc {
namespace {

using testing::HasSubstr;

class Operations : public CloudTest {
 protected:
  const Principal ann{"ann", false};

  /// A desktop of ann's that runs.
  std::string running_desktop() {
    imgid_ = import("debian");
    NewVm request;
    request.imgid = imgid_;
    const auto vm = cloud->define_vm(ann, request);
    EXPECT_TRUE(vm) << vm.error().message;
    const auto insid = vm->instance.insid;
    tid_ = imgid_ + ":" + imgid_ + ":" + insid;
    EXPECT_TRUE(cloud->run_vm(ann, insid));
    bring_up();
    return insid;
  }
  void say_final(Event event, const std::string& errormsg = "") {
    auto status = answer(last(), event);
    status.final = 1;
    status.errormsg = errormsg;
    tell(status);
  }
  bool busy() { return cloud->task(admin, tid_)->task.op_open; }
  std::string error() { return cloud->task(admin, tid_)->task.errormsg; }

  std::string imgid_, tid_;
};

TEST_F(Operations, ADesktopIsPausedResumedAndRestarted) {
  const auto insid = running_desktop();
  ASSERT_TRUE(cloud->operate_vm(ann, insid, VmOperation::pause));
  EXPECT_EQ(ops(), "instance/pause");
  EXPECT_TRUE(busy());
  say_final(Event::paused);
  EXPECT_EQ(cloud->vm(ann, insid)->state, "paused");
  EXPECT_FALSE(busy());
  EXPECT_TRUE(cloud->vm(ann, insid)->access) << "it keeps its ports";
  EXPECT_THAT(cloud->operate_vm(ann, insid, VmOperation::restart).error().message, HasSubstr("resume it"));

  ASSERT_TRUE(cloud->operate_vm(ann, insid, VmOperation::resume));
  EXPECT_EQ(ops(), "instance/resume");
  say_final(Event::running);
  EXPECT_EQ(cloud->vm(ann, insid)->state, "running");

  ASSERT_TRUE(cloud->operate_vm(ann, insid, VmOperation::restart));
  EXPECT_EQ(ops(), "instance/restart");
  auto half = answer(last(), Event::running);
  half.progress = 50;
  tell(half);
  EXPECT_TRUE(busy()) << "not its last word";
  EXPECT_EQ(cloud->operate_vm(ann, insid, VmOperation::pause).error().code, ErrorCode::conflict);
  say_final(Event::running);
  EXPECT_FALSE(busy());
}

TEST_F(Operations, ARefusalLeavesTheDesktopAsItIsAndTellsWhy) {
  const auto insid = running_desktop();
  ASSERT_TRUE(cloud->operate_vm(ann, insid, VmOperation::pause));
  ops();
  say_final(Event::refused, "libvirt says no");
  EXPECT_EQ(at(tid_), "editing/running+");
  EXPECT_EQ(error(), "libvirt says no");
  EXPECT_FALSE(busy());
}

TEST_F(Operations, OnlyARunningDesktopOfOnesOwn) {
  const auto insid = running_desktop();
  const Principal ben{"ben", false};
  EXPECT_EQ(cloud->operate_vm(ben, insid, VmOperation::pause).error().code, ErrorCode::not_found);
  EXPECT_EQ(cloud->limit_vm(ben, insid, {}).error().code, ErrorCode::not_found);
  ASSERT_TRUE(cloud->stop_vm(ann, insid));
  ops();
  say(Event::stopped);
  for (const auto operation : {VmOperation::pause, VmOperation::resume, VmOperation::restart})
    EXPECT_EQ(cloud->operate_vm(ann, insid, operation).error().code, ErrorCode::conflict);
  EXPECT_EQ(ops(), "");
}

TEST_F(Operations, AStopEndsAPausedDesktop) {
  const auto insid = running_desktop();
  ASSERT_TRUE(cloud->operate_vm(ann, insid, VmOperation::pause));
  ops();
  say_final(Event::paused);
  ASSERT_TRUE(cloud->stop_vm(ann, insid));
  EXPECT_EQ(ops(), "image/stop");
  say(Event::stopped);
  EXPECT_EQ(cloud->vm(ann, insid)->state, "stopped");
}

TEST_F(Operations, ADrainStopsAPausedDesktop) {
  const auto insid = running_desktop();
  ASSERT_TRUE(cloud->operate_vm(ann, insid, VmOperation::pause));
  ops();
  say_final(Event::paused);
  ASSERT_TRUE(cloud->set_node_state(admin, last().nid, NodeState::drained));
  EXPECT_EQ(ops(), "");
  advance(61);
  EXPECT_EQ(ops(), "image/stop");
}

TEST_F(Operations, LimitsAreKeptSentLiveAndComeWithTheNextStart) {
  const auto insid = running_desktop();
  EXPECT_FALSE(last().runtime_option->limits) << "none by default";
  LimitsChange change;
  change.cpu_percent = 50;
  auto vm = cloud->limit_vm(ann, insid, change);
  ASSERT_TRUE(vm) << vm.error().message;
  EXPECT_EQ(ops(), "instance/limit");
  ASSERT_TRUE(last().limits);
  EXPECT_EQ(last().limits->cpu_percent, 50);
  say_final(Event::running);
  EXPECT_EQ(cloud->vm(ann, insid)->limits.cpu_percent, 50);

  ASSERT_TRUE(cloud->stop_vm(ann, insid));
  ops();
  say(Event::stopped);
  change.cpu_percent.reset();
  change.disk_iops = 500;
  ASSERT_TRUE(cloud->limit_vm(ann, insid, change));
  EXPECT_EQ(ops(), "") << "it does not run";
  ASSERT_TRUE(cloud->run_vm(ann, insid));
  bring_up();
  ASSERT_TRUE(last().runtime_option->limits);
  EXPECT_EQ(*last().runtime_option->limits, (msg::Limits{50, 0, 500, 0, 0}));
}

TEST_F(Operations, LimitsHaveAFloorAndForOwnersTheTypesCeiling) {
  const auto insid = running_desktop();
  LimitsChange change;
  change.cpu_percent = 9;
  EXPECT_THAT(cloud->limit_vm(ann, insid, change).error().message, HasSubstr("at least 10"));
  ASSERT_TRUE(cloud->put_vmtype(admin, {"vdsmall", 4096, 1, {100, 0, 0, 0, 0}}));
  EXPECT_EQ(cloud->vm(ann, insid)->limits.cpu_percent, 100) << "its type's";
  change.cpu_percent = 150;
  const auto refused = cloud->limit_vm(ann, insid, change);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::permission_denied);
  EXPECT_EQ(refused.error().key, "cpu_percent");
  EXPECT_EQ(ops(), "");
  ASSERT_TRUE(cloud->limit_vm(admin, insid, change));
  EXPECT_EQ(ops(), "instance/limit");
  EXPECT_EQ(last().limits->cpu_percent, 150);
  EXPECT_EQ(cloud->limit_vm(ann, insid, {}).error().code, ErrorCode::permission_denied)
      << "what an administrator gave is not the owner's to keep";
  say_final(Event::running);
  change.cpu_percent = 0;
  ASSERT_TRUE(cloud->limit_vm(ann, insid, change));
  EXPECT_EQ(ops(), "instance/limit");
  EXPECT_EQ(last().limits->cpu_percent, 100) << "its type's again";
}

TEST_F(Operations, LimitsOfADesktopThatBootsWaitUntilItRuns) {
  const auto insid = define(import("debian"));
  ASSERT_TRUE(cloud->run_vm(admin, insid));
  ASSERT_EQ(ops(), "image/prepare");
  LimitsChange change;
  change.cpu_percent = 50;
  ASSERT_TRUE(cloud->limit_vm(admin, insid, change)) << "its boot will take them";
  say(Event::prepared);
  ASSERT_EQ(ops(), "image/run");
  EXPECT_EQ(last().runtime_option->limits->cpu_percent, 50);
  change.cpu_percent = 60;
  EXPECT_EQ(cloud->limit_vm(admin, insid, change).error().code, ErrorCode::conflict);
  EXPECT_EQ(cloud->vm(admin, insid)->limits.cpu_percent, 50) << "nothing is half done";
}

TEST_F(Operations, TheFirstBootReachesTheNodeWithAHashOnly) {
  NewVm request;
  request.imgid = import("debian");
  request.first_boot = {"lab-07", "ada", "", "open sesame"};
  const auto vm = cloud->define_vm(ann, request);
  ASSERT_TRUE(vm) << vm.error().message;
  const auto shown = to_json(*vm);
  EXPECT_EQ(shown["first_boot"]["hostname"], "lab-07");
  EXPECT_EQ(shown["first_boot"]["password"], true);
  EXPECT_EQ(shown.dump().find("$6$"), std::string::npos) << "not even the hash is shown";
  ASSERT_TRUE(cloud->run_vm(ann, vm->instance.insid));
  bring_up();
  ASSERT_TRUE(last().runtime_option->first_boot);
  EXPECT_EQ(last().runtime_option->first_boot->hostname, "lab-07");
  EXPECT_EQ(last().runtime_option->first_boot->user, "ada");
  EXPECT_THAT(last().runtime_option->first_boot->password_hash, testing::StartsWith("$6$rounds=20000$"));
  EXPECT_EQ(msg::serialize(last()).find("open sesame"), std::string::npos);

  request.first_boot.hostname = "not a name";
  EXPECT_EQ(cloud->define_vm(ann, request).error().key, "hostname");
}

TEST_F(Operations, WhatTheGuestAgentTellsIsShown) {
  const auto insid = running_desktop();
  msg::VmData data;
  data.insid = insid;
  data.hostname = "lab-07";
  data.ip = "10.0.2.15";
  running_vms[last().nid] = {data};
  beat();
  EXPECT_EQ(cloud->vm(ann, insid)->hostname, "lab-07");
  EXPECT_EQ(cloud->vm(ann, insid)->ip, "10.0.2.15");
}

TEST_F(Operations, TypesAreTheAdministratorsToChange) {
  EXPECT_EQ(cloud->put_vmtype(ann, {"lab", 512, 1, {}}).error().code, ErrorCode::permission_denied);
  EXPECT_EQ(cloud->delete_vmtype(ann, "vdsmall").error().code, ErrorCode::permission_denied);
  EXPECT_EQ(cloud->put_ostype(ann, {"bsd", "virtio", "virtio", "none", "virtiofs"}).error().code,
            ErrorCode::permission_denied);
  EXPECT_EQ(cloud->delete_ostype(ann, "linux").error().code, ErrorCode::permission_denied);
  EXPECT_EQ(cloud->vmtypes(ann)->items.size(), 6u);
  EXPECT_EQ(cloud->ostypes(ann)->items.size(), 3u);

  ASSERT_TRUE(cloud->put_vmtype(admin, {"lab", 512, 1, {200, 0, 0, 0, 0}}));
  EXPECT_EQ(cloud->vmtype(ann, "lab")->limits.cpu_percent, 200);
  EXPECT_EQ(cloud->put_vmtype(admin, {"lab", 512, 1, {5, 0, 0, 0, 0}}).error().key, "cpu_percent");
  EXPECT_EQ(cloud->put_vmtype(admin, {"../x", 512, 1, {}}).error().key, "name");
  EXPECT_EQ(cloud->put_vmtype(admin, {"lab", 1, 1, {}}).error().key, "memory_mib");
  ASSERT_TRUE(cloud->delete_vmtype(admin, "lab"));
  EXPECT_EQ(cloud->vmtype(ann, "lab").error().code, ErrorCode::not_found);
}

TEST_F(Operations, TypesInUseStay) {
  const auto insid = running_desktop();
  EXPECT_THAT(cloud->delete_vmtype(admin, "vdsmall").error().message, HasSubstr(insid));
  EXPECT_THAT(cloud->delete_ostype(admin, "linux").error().message, HasSubstr("image debian"));
  ASSERT_TRUE(cloud->put_ostype(admin, {"bsd", "ide", "rtl8139", "ac97", "smb"}));
  EXPECT_EQ(cloud->ostype(ann, "bsd")->sound_type, "ac97");
  ASSERT_TRUE(cloud->delete_ostype(admin, "bsd"));
  EXPECT_EQ(cloud->delete_ostype(admin, "bsd").error().code, ErrorCode::not_found);
  ASSERT_TRUE(cloud->put_ostype(admin, {"linux", "sata", "e1000", "none", "virtiofs"}));
  ASSERT_TRUE(cloud->stop_vm(ann, insid));
  ops();
  say(Event::stopped);
  ASSERT_TRUE(cloud->run_vm(ann, insid));
  bring_up();
  EXPECT_EQ(last().runtime_option->disk_type, "sata") << "at its next start";
}

}  // namespace
}  // namespace educloud::clc
