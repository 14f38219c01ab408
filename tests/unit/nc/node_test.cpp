#include "unit/nc/node_fixture.hpp"

namespace educloud::nc {
namespace {

using ::testing::HasSubstr;

TEST_F(NodeTest, ADesktopRunsAndItsChangesAreForgotten) {
  EXPECT_EQ(ask("image/prepare", kDesktop).event, "prepared");
  EXPECT_EQ(events()[0], "downloading");
  EXPECT_EQ(images_->last_request.grant, "node=nc1&expires=1&sig=x");
  EXPECT_EQ(images_->last_request.digest.hex(), std::string(64, 'd'));
  auto running = ask("image/run", kDesktop);
  EXPECT_EQ(running.event, "running");
  EXPECT_EQ(running.final, 1);
  EXPECT_EQ(events(), (std::vector<std::string>{"booting", "running"}));
  const auto spec = hypervisor_.spec(vm(kDesktop));
  ASSERT_TRUE(spec);
  ASSERT_EQ(spec->disk.size(), 3u);
  EXPECT_EQ(spec->disk[1].file, prefix_ / "images/IMG00000001/versions/3/machine");
  EXPECT_EQ(spec->disk[2].format, "raw");
  EXPECT_TRUE(std::filesystem::exists(overlay(kDesktop)));
  EXPECT_EQ(ask("image/stop", kDesktop).event, "stopped");
  EXPECT_FALSE(std::filesystem::exists(overlay(kDesktop)));
  EXPECT_EQ(ask("image/run", kDesktop).event, "running");
  EXPECT_EQ(images_->overlays, 2);
  EXPECT_EQ(ask("task/delete", kDesktop).event, "deleted");
  EXPECT_FALSE(hypervisor_.spec(vm(kDesktop)));
  EXPECT_FALSE(std::filesystem::exists(vm_folder(kDesktop)));
}

TEST_F(NodeTest, ADuplicateIsAnsweredAndNotDoneAgain) {
  const auto prepare = command("image/prepare", kDesktop);
  ask(prepare);
  EXPECT_EQ(ask(prepare).event, "prepared");
  EXPECT_EQ(images_->fetches, 1);
  const auto run = command("image/run", kDesktop);
  ask(run);
  EXPECT_EQ(ask(run).event, "running");
  EXPECT_EQ(hypervisor_.starts(), 1);
}

TEST_F(NodeTest, GarbageAndForeignCommandsAreDeadLetteredAndNeighboursWork) {
  send("{");
  send("{\"type\":\"cmd\"}");
  auto foreign = command("image/run", kDesktop);
  foreign.nid = "nc2";
  send(foreign);
  auto path = command("image/run", "IMG00000001:IMG00000001:../../etc");
  send(path);
  auto walrus = command("image/prune", kDesktop);
  send(walrus);
  EXPECT_EQ(broker_.dead_letters(), 5u);
  EXPECT_EQ(ask("image/prepare", kDesktop).event, "prepared");
}

TEST_F(NodeTest, AFailureIsToldWithItsReasonAndPlace) {
  images_->fetch_error = Error{ErrorCode::corrupt, "digest differs", {}};
  auto failed = ask("image/prepare", kDesktop);
  EXPECT_EQ(failed.failed, 1);
  EXPECT_EQ(failed.phase, "preparing");
  EXPECT_EQ(failed.state, "init");
  EXPECT_EQ(failed.errormsg, "digest differs");
  EXPECT_EQ(failed.final, 1);
  EXPECT_THAT(ask("image/run", kDesktop).errormsg, HasSubstr("prepare it first"));
  EXPECT_EQ(told_.back().state, "stopped");
  ask("image/prepare", kDesktop);
  hypervisor_.fail_next_start({ErrorCode::conflict, "port 5901 is taken", {}});
  EXPECT_EQ(ask("image/run", kDesktop).errormsg, "port 5901 is taken");
  EXPECT_FALSE(std::filesystem::exists(overlay(kDesktop)));
  images_->free_bytes = 1 << 20;
  EXPECT_THAT(ask("image/run", kDesktop).errormsg, HasSubstr("must stay free"));
}

TEST_F(NodeTest, ALateCommandIsRefusedWithTheReason) {
  auto late = command("image/prepare", kDesktop);
  late.deadline = clock_.wall_ms() - 10'000;
  EXPECT_THAT(ask(late).errormsg, HasSubstr("after its deadline"));
  EXPECT_EQ(images_->fetches, 0);
}

TEST_F(NodeTest, ADeleteInterruptsAPrepare) {
  images_->during_fetch = [&] { send(command("task/delete", kDesktop)); };
  EXPECT_EQ(ask("image/prepare", kDesktop).event, "deleted");
  EXPECT_EQ(events(), (std::vector<std::string>{"downloading", "deleted"}));
}

TEST_F(NodeTest, AStoppedDaemonRedoesWhatItLeftOpen) {
  images_->during_fetch = [&] { node_->stop(); };
  ask("image/prepare", kDesktop);
  EXPECT_EQ(events(), (std::vector<std::string>{"downloading"}));
  boot();
  work();
  EXPECT_EQ(told_.back().event, "prepared");
  EXPECT_EQ(images_->fetches, 2);
}

TEST_F(NodeTest, ARunThatIsRedoneFindsItsVmAndLeavesItsDisk) {
  ask("image/prepare", kDesktop);
  const auto run = command("image/run", kDesktop);
  send(run);  // accepted, then killed before anything; and as if the VM had been started just before
  node_->run_one(Lane::machines);
  ASSERT_EQ(hypervisor_.starts(), 1);
  auto again = command("image/run", kDesktop);
  send(again);
  boot();
  work();
  EXPECT_EQ(told_.back().event, "running");
  EXPECT_EQ(told_.back().cmdid, again.cmdid);
  EXPECT_EQ(hypervisor_.starts(), 1);
  EXPECT_EQ(images_->overlays, 1);
}

TEST_F(NodeTest, AGuestThatPowersOffIsToldAndItsOverlayGoes) {
  ask("image/prepare", kDesktop);
  ask("image/run", kDesktop);
  told_.clear();
  hypervisor_.end(vm(kDesktop), VmEvent::Kind::stopped);
  work();
  ASSERT_EQ(told_.size(), 1u);
  EXPECT_EQ(told_[0].event, "stopped");
  EXPECT_EQ(told_[0].failed, 0);
  EXPECT_FALSE(std::filesystem::exists(overlay(kDesktop)));
}

TEST_F(NodeTest, ACrashIsAFailureAndAStopOfOursIsToldOnce) {
  ask("image/prepare", kDesktop);
  ask("image/run", kDesktop);
  told_.clear();
  hypervisor_.end(vm(kDesktop), VmEvent::Kind::crashed);
  work();
  ASSERT_EQ(told_.size(), 1u);
  EXPECT_EQ(told_[0].failed, 1);
  ask("image/run", kDesktop);
  ask("image/stop", kDesktop);
  EXPECT_EQ(events(), (std::vector<std::string>{"stopped"}));
}

TEST_F(NodeTest, AVmThatEndedUnseenIsFoundByLookingTwice) {
  ask("image/prepare", kDesktop);
  ask("image/run", kDesktop);
  told_.clear();
  hypervisor_.end(vm(kDesktop), VmEvent::Kind::stopped, true);
  boot();
  hypervisor_.set_reachable(false);
  node_->reconcile();
  clock_.advance(std::chrono::milliseconds{5000});
  node_->reconcile();
  work();
  EXPECT_TRUE(told_.empty());  // a hypervisor that does not answer is not one without VMs
  hypervisor_.set_reachable(true);
  node_->reconcile();
  work();
  EXPECT_TRUE(told_.empty());
  clock_.advance(std::chrono::milliseconds{1000});
  node_->reconcile();
  work();
  ASSERT_EQ(told_.size(), 1u);
  EXPECT_EQ(told_[0].event, "failed");
  EXPECT_EQ(told_[0].state, "stopped");
  EXPECT_THAT(told_[0].errormsg, HasSubstr("while nc or libvirt was away"));
}

TEST_F(NodeTest, AGuestThatIgnoresThePowerButtonIsSwitchedOff) {
  ask("image/prepare", kDesktop);
  ask("image/run", kDesktop);
  hypervisor_.ignore_power_button(true);
  auto stopped = ask("image/stop", kDesktop);
  EXPECT_EQ(stopped.event, "stopped");
  EXPECT_THAT(stopped.prompt, HasSubstr("switched off"));
  EXPECT_EQ(ask("image/stop", kDesktop).event, "stopped");  // nothing runs: success
}

}  // namespace
}  // namespace educloud::nc
