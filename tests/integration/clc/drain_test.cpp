#include <ctime>

#include "integration/clc/cloud_fixture.hpp"

// What runs on a node that is drained: warned, moved or stopped.

namespace educloud::clc {
namespace {

using testing::HasSubstr;

class Drain : public CloudTest {
 protected:
  void tune(CloudOptions& options) override { options.display_port_last = options.display_port_first + 3; }

  /// A desktop that runs on nc1; it can move if its folders are there by smb.
  std::string desktop(const std::string& protocol = "virtiofs") {
    if (imgid_.empty()) imgid_ = import("debian");
    NewVm request;
    request.imgid = imgid_;
    request.folder_protocol = protocol;
    const auto vm = cloud->define_vm(admin, request);
    EXPECT_TRUE(vm) << vm.error().message;
    const auto insid = vm->instance.insid;
    EXPECT_TRUE(cloud->run_vm(admin, insid));
    bring_up();
    EXPECT_EQ(last().nid, "nc1");
    return insid;
  }
  void drain_nc1() { ASSERT_TRUE(cloud->set_node_state(admin, "nc1", NodeState::drained)); }
  Task task(const std::string& insid) { return cloud->vm(admin, insid)->task->task; }
  /// The warning of one that is stopped so many seconds from now.
  std::string warning(std::int64_t in_s) {
    const std::time_t at = clock.wall_ms() / 1000 + in_s;
    std::tm utc{};
    char text[16];
    (void)std::strftime(text, sizeof text, "%H:%M:%S", ::gmtime_r(&at, &utc));
    return "node nc1 is drained: this VM is stopped at " + std::string(text) + " UTC, save your work";
  }
  /// Heartbeats for so many minutes, in which the VM uses so much of a cpu.
  void work(const std::string& insid, int minutes, double percent) {
    msg::VmData vm;
    vm.insid = insid;
    vm.state = "running";
    vm.phy_cpu = percent;
    running_vms["nc1"] = {vm};
    for (int i = 0; i <= minutes * 6; ++i) advance(10);
  }

  std::string imgid_;
};

TEST_F(Drain, WhatCannotMoveIsWarnedAndStoppedWhenItsTimeIsOver) {
  const auto insid = desktop();
  EXPECT_EQ(task(insid).leaves_at, 0);
  drain_nc1();
  EXPECT_EQ(ops(), "");
  EXPECT_EQ(task(insid).prompt, warning(60));
  EXPECT_EQ(to_json(*cloud->vm(admin, insid)->task)["stops_at"], clock.wall_ms() + 60'000);
  const auto said = warning(60);
  for (int i = 0; i < 5; ++i) advance(11);
  EXPECT_EQ(ops(), "");
  EXPECT_EQ(task(insid).prompt, said) << "told once, and it stays so";
  drain_nc1();
  EXPECT_EQ(task(insid).prompt, said) << "drained again: nothing new";
  advance(6);
  EXPECT_EQ(ops(), "image/stop");
  EXPECT_THAT(task(insid).prompt, HasSubstr("is being drained"));
  say(Event::stopped);
  EXPECT_THAT(task(insid).prompt, HasSubstr("start it again and it runs elsewhere"));
  EXPECT_GT(task(insid).leaves_at, 0) << "that it was the drain is known";
  advance(120);
  EXPECT_EQ(ops(), "");
  ASSERT_TRUE(cloud->run_vm(admin, insid));
  EXPECT_EQ(task(insid).leaves_at, 0);
}

TEST_F(Drain, WhatItsUserStopsWasNotEndedByTheDrain) {
  const auto insid = desktop();
  drain_nc1();
  advance(5);
  ASSERT_TRUE(cloud->stop_vm(admin, insid));
  ASSERT_EQ(ops(), "image/stop");
  advance(60);
  say(Event::stopped);
  EXPECT_EQ(task(insid).leaves_at, 0);
}

TEST_F(Drain, WhatEndsByItselfWasNotEndedByTheDrain) {
  const auto insid = desktop();
  drain_nc1();
  advance(5);
  ASSERT_GT(task(insid).leaves_at, 0);
  say(Event::stopped);
  EXPECT_EQ(task(insid).leaves_at, 0);
}

TEST_F(Drain, ANodeThatIsEnabledAgainTakesTheWarningBack) {
  for (const auto state : {NodeState::enabled, NodeState::no_new}) {
    const auto insid = desktop();
    drain_nc1();
    EXPECT_EQ(task(insid).prompt, warning(60));
    advance(59);
    ASSERT_TRUE(cloud->set_node_state(admin, "nc1", state));
    EXPECT_EQ(task(insid).prompt, "");
    EXPECT_EQ(task(insid).leaves_at, 0);
    advance(120);
    EXPECT_EQ(ops(), "");
    EXPECT_EQ(cloud->vm(admin, insid)->state, "running");
    ASSERT_TRUE(cloud->set_node_state(admin, "nc1", NodeState::enabled));
    drain_nc1();
    EXPECT_EQ(task(insid).prompt, warning(60)) << "each drain has its own time";
    ASSERT_TRUE(cloud->set_node_state(admin, "nc1", NodeState::enabled));
    ASSERT_TRUE(cloud->stop_vm(admin, insid));
    ASSERT_EQ(ops(), "image/stop");
    say(Event::stopped);
  }
}

TEST_F(Drain, AKilledClcKeepsToTheTimeThatWasTold) {
  const auto insid = desktop();
  drain_nc1();
  advance(20);
  const auto said = task(insid).prompt;
  halt();
  boot();
  beat();
  advance(20);
  EXPECT_EQ(task(insid).prompt, said);
  EXPECT_EQ(ops(), "");
  halt();
  clock.advance(std::chrono::seconds{30});
  boot();
  beat();
  advance(1);
  EXPECT_EQ(ops(), "image/stop") << "its time went on";
}

TEST_F(Drain, PausedOnesAreWarnedTooAndWhatIsUnderWayIsWaitedFor) {
  const auto insid = desktop();
  ASSERT_TRUE(cloud->operate_vm(admin, insid, VmOperation::pause));
  ASSERT_EQ(ops(), "instance/pause");
  drain_nc1();
  EXPECT_EQ(task(insid).leaves_at, 0) << "busy";
  auto paused = answer(last(), Event::paused);
  paused.final = 1;
  tell(paused);
  advance(1);
  EXPECT_EQ(task(insid).prompt, warning(60));
  advance(55);
  // Neither puts the end off.
  ASSERT_TRUE(cloud->operate_vm(admin, insid, VmOperation::resume));
  ASSERT_EQ(ops(), "instance/resume");
  advance(6);
  EXPECT_EQ(ops(), "");
  auto resumed = answer(last(), Event::running);
  resumed.final = 1;
  tell(resumed);
  advance(1);
  EXPECT_EQ(ops(), "image/stop");
}

TEST_F(Drain, AnIdleDesktopIsStoppedAndOneAtWorkMoves) {
  const auto insid = desktop("smb");
  work(insid, 9, 2.5);
  drain_nc1();
  EXPECT_EQ(ops(), "instance/migrate") << "nine minutes are not ten";
  auto refused = answer(last(), Event::refused);
  refused.final = 1;
  tell(refused);
  ASSERT_TRUE(cloud->set_node_state(admin, "nc1", NodeState::enabled));
  ops();
  work(insid, 2, 2.5);
  drain_nc1();
  EXPECT_EQ(ops(), "");
  EXPECT_EQ(task(insid).prompt, warning(60));
  work(insid, 1, 2.5);
  EXPECT_EQ(ops(), "image/stop");
}

TEST_F(Drain, WhoeverComesBackToAnIdleDesktopMovesAfterAll) {
  const auto insid = desktop("smb");
  work(insid, 11, 0.1);
  drain_nc1();
  EXPECT_EQ(ops(), "");
  work(insid, 1, 40);
  EXPECT_EQ(ops(), "instance/migrate");
  EXPECT_EQ(task(insid).state.state, task::State::running);
  auto there = answer(last(), Event::running);
  there.final = 1;
  tell(there);
  EXPECT_EQ(task(insid).node, "nc2");
  EXPECT_EQ(task(insid).leaves_at, 0);
  EXPECT_EQ(task(insid).prompt, "");
}

TEST_F(Drain, OneThatNoOtherNodeTookIsWarnedOnce) {
  const auto insid = desktop("smb");
  drain_nc1();
  ASSERT_EQ(ops(), "instance/migrate");
  auto refused = answer(last(), Event::refused);
  refused.final = 1;
  refused.errormsg = "no room";
  tell(refused);
  advance(1);
  EXPECT_EQ(task(insid).prompt, warning(60));
  EXPECT_EQ(task(insid).errormsg, "no room");
  ops();
  advance(61);
  EXPECT_EQ(ops(), "image/stop");
}

TEST_F(Drain, AClockThatJumpsTakesTheTimeAlong) {
  const auto insid = desktop();
  advance(1);
  drain_nc1();
  clock.jump_wall(std::chrono::hours{1});
  advance(1);
  EXPECT_EQ(ops(), "");
  EXPECT_EQ(task(insid).prompt, warning(59));
}

class DrainAtOnce : public Drain {
 protected:
  void tune(CloudOptions& options) override {
    Drain::tune(options);
    options.drain_warning_ms = 0;
    options.drain_idle_ms = 0;
  }
};

TEST_F(DrainAtOnce, NoWarningAndNobodyIdle) {
  const auto stays = desktop();
  drain_nc1();
  EXPECT_EQ(ops(), "image/stop");
  EXPECT_THAT(task(stays).prompt, HasSubstr("is being drained"));
  say(Event::stopped);
  ASSERT_TRUE(cloud->set_node_state(admin, "nc1", NodeState::enabled));
  const auto moves = desktop("smb");
  work(moves, 30, 0);
  drain_nc1();
  EXPECT_EQ(ops(), "instance/migrate");
}

}  // namespace
}  // namespace educloud::clc
