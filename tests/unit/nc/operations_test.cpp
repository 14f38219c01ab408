#include "nc/app/guest_watch.hpp"
#include "nc/domain/seed.hpp"
#include "unit/nc/node_fixture.hpp"

namespace educloud::nc {
namespace {

using ::testing::HasSubstr;

class OperationsTest : public NodeTest {
 protected:
  void SetUp() override {
    NodeTest::SetUp();
    ask("image/prepare", kDesktop);
    ASSERT_EQ(ask("image/run", kDesktop).event, "running");
  }
  VmState state() { return *hypervisor_.state(vm(kDesktop)); }
};

TEST_F(OperationsTest, AVmIsPausedAndGoesOn) {
  const auto paused = ask("instance/pause", kDesktop);
  EXPECT_EQ(paused.event, "paused");
  EXPECT_EQ(paused.state, "paused");
  EXPECT_EQ(paused.final, 1);
  EXPECT_EQ(state(), VmState::paused);
  EXPECT_EQ(ask("instance/pause", kDesktop).event, "paused");
  const auto resume = command("instance/resume", kDesktop);
  EXPECT_EQ(ask(resume).event, "running");
  EXPECT_EQ(ask(resume).final, 1);  // redelivered: its answer again
  EXPECT_EQ(state(), VmState::running);
}

TEST_F(OperationsTest, APausedVmIsNeitherMissedNorTakenForEnded) {
  ask("instance/pause", kDesktop);
  told_.clear();
  node_->reconcile();
  clock_.advance(std::chrono::milliseconds{5000});
  node_->reconcile();
  work();
  EXPECT_TRUE(told_.empty());
  hypervisor_.end(vm(kDesktop), VmEvent::Kind::stopped);
  work();
  ASSERT_EQ(told_.size(), 1u);
  EXPECT_EQ(told_[0].event, "stopped");
  EXPECT_FALSE(std::filesystem::exists(overlay(kDesktop)));
}

TEST_F(OperationsTest, AGuestRestartsOrIsReset) {
  EXPECT_EQ(ask("instance/restart", kDesktop).prompt, "the guest restarted");
  EXPECT_EQ(hypervisor_.resets(), 0);
  hypervisor_.ignore_power_button(true);
  const auto reset = ask("instance/restart", kDesktop);
  EXPECT_EQ(reset.event, "running");
  EXPECT_THAT(reset.prompt, HasSubstr("was reset"));
  EXPECT_EQ(hypervisor_.resets(), 1);
  ask("instance/pause", kDesktop);
  EXPECT_THAT(ask("instance/restart", kDesktop).prompt, HasSubstr("was paused"));
  EXPECT_EQ(state(), VmState::running);
}

TEST_F(OperationsTest, LimitsHoldFromTheStartAndChangeLive) {
  auto limit = command("instance/limit", kDesktop);
  limit.limits = msg::Limits{.cpu_percent = 50, .disk_iops = 100, .net_mbit_s = 10};
  const auto told = ask(limit);
  EXPECT_EQ(told.event, "running");
  EXPECT_EQ(told.prompt, "the limits hold");
  EXPECT_TRUE(hypervisor_.diverted(vm(kDesktop)));
  EXPECT_EQ(hypervisor_.spec(vm(kDesktop))->limits, *limit.limits);
  ask("instance/pause", kDesktop);
  limit = command("instance/limit", kDesktop);
  limit.limits = msg::Limits{};
  EXPECT_EQ(ask(limit).event, "paused");
  EXPECT_EQ(hypervisor_.spec(vm(kDesktop))->limits, msg::Limits{});
  EXPECT_FALSE(hypervisor_.diverted(vm(kDesktop)));
  ask("image/stop", kDesktop);
  auto run = command("image/run", kDesktop);
  run.runtime_option->limits = msg::Limits{.cpu_percent = 20};
  ask(run);
  EXPECT_EQ(hypervisor_.spec(vm(kDesktop))->limits.cpu_percent, 20);
}

TEST_F(OperationsTest, WhatCannotBeDoneIsRefusedAndTheVmStays) {
  const auto none = ask("instance/limit", kDesktop);
  EXPECT_EQ(none.event, "refused");
  EXPECT_EQ(none.state, "running");
  EXPECT_EQ(none.failed, 1);
  EXPECT_EQ(none.final, 1);
  auto late = command("instance/pause", kDesktop);
  late.deadline = clock_.wall_ms() - 10'000;
  EXPECT_EQ(ask(late).event, "refused");
  EXPECT_EQ(state(), VmState::running);
  // The refusal hides nothing: a VM that ends later is told as ever.
  hypervisor_.end(vm(kDesktop), VmEvent::Kind::crashed);
  work();
  EXPECT_EQ(told_.back().event, "failed");
}

TEST_F(OperationsTest, AVmThatEndedUnseenIsToldByTheOperation) {
  hypervisor_.end(vm(kDesktop), VmEvent::Kind::stopped, true);
  const auto told = ask("instance/pause", kDesktop);
  EXPECT_EQ(told.event, "failed");
  EXPECT_EQ(told.state, "stopped");
  EXPECT_EQ(told.final, 1);
  EXPECT_FALSE(std::filesystem::exists(overlay(kDesktop)));
}

TEST_F(OperationsTest, AVmPausedBehindOurBackIsTold) {
  told_.clear();
  ASSERT_TRUE(hypervisor_.pause(vm(kDesktop)));
  work();
  ASSERT_EQ(told_.size(), 1u);
  EXPECT_EQ(told_[0].event, "paused");
  ASSERT_TRUE(hypervisor_.resume(vm(kDesktop)));
  work();
  EXPECT_EQ(told_.back().event, "running");
  hypervisor_.stop();  // its events are lost: the next look finds it
  ASSERT_TRUE(hypervisor_.pause(vm(kDesktop)));
  node_->reconcile();
  work();
  EXPECT_EQ(told_.back().event, "paused");
}

TEST_F(OperationsTest, APausedGuestFeelsThePowerButton) {
  grace_ = std::chrono::seconds{30};
  boot();
  ask("instance/pause", kDesktop);
  EXPECT_EQ(ask("image/stop", kDesktop).prompt, "the guest powered off");
}

TEST_F(OperationsTest, TheAgentsWordsAreKeptWhileTheGuestStandsStill) {
  GuestWatch watch(hypervisor_);
  hypervisor_.set_facts(vm(kDesktop), {"pc-7", "10.0.2.15"});
  EXPECT_EQ(watch.facts(vm(kDesktop)), GuestFacts{});
  watch.look();
  ASSERT_TRUE(hypervisor_.pause(vm(kDesktop)));
  hypervisor_.set_facts(vm(kDesktop), {});
  watch.look();
  EXPECT_EQ(watch.facts(vm(kDesktop)).hostname, "pc-7");
  hypervisor_.end(vm(kDesktop), VmEvent::Kind::stopped);
  watch.look();
  EXPECT_EQ(watch.facts(vm(kDesktop)), GuestFacts{});
}

TEST_F(OperationsTest, AFirstBootHasItsDiskForThatRunOnly) {
  ask("image/stop", kDesktop);
  auto run = command("image/run", kDesktop);
  run.runtime_option->first_boot = msg::FirstBoot{"pc-7", "alice", "ssh-ed25519 AAAA a@b", "$6$salt$hash"};
  ASSERT_EQ(ask(run).event, "running");
  const auto seed = hypervisor_.spec(vm(kDesktop))->seed;
  EXPECT_EQ(seed, vm_folder(kDesktop) / "seed.img");
  EXPECT_EQ(std::filesystem::status(seed).permissions(), std::filesystem::perms(0600));
  ask("image/stop", kDesktop);
  EXPECT_FALSE(std::filesystem::exists(seed));
  ask("image/run", kDesktop);
  EXPECT_TRUE(hypervisor_.spec(vm(kDesktop))->seed.empty());
}

class SnapshotTest : public OperationsTest {
 protected:
  msg::TaskStatus snap(const std::string& what, const std::string& name, int with_memory = 1) {
    auto made = command("snapshot/" + what, kDesktop);
    made.snapshot = name;
    made.with_memory = with_memory;
    return ask(made);
  }
};

TEST_F(SnapshotTest, IsTakenAndRestored) {
  const auto taken = snap("take", "snap-00000001");
  EXPECT_EQ(taken.event, "running");
  EXPECT_EQ(taken.snapshot, "snap-00000001");
  EXPECT_EQ(taken.final, 1);
  ask("instance/pause", kDesktop);
  const auto restored = snap("restore", "snap-00000001");
  EXPECT_EQ(restored.event, "paused");
  EXPECT_EQ(restored.snapshot, "snap-00000001");
}

TEST_F(SnapshotTest, ABadOneFallsBackToTheNextOlderThatIsSound) {
  for (const char* name : {"snap-00000001", "snap-00000002", "snap-00000003", "snap-00000004"})
    snap("take", name);
  hypervisor_.spoil_snapshot("snap-00000003");
  ASSERT_TRUE(hypervisor_.drop_snapshot(vm(kDesktop), overlay(kDesktop), "snap-00000002"));
  boot();
  const auto restored = snap("restore", "snap-00000003");
  EXPECT_EQ(restored.event, "running");
  EXPECT_EQ(restored.failed, 0);
  EXPECT_EQ(restored.snapshot, "snap-00000001");
  EXPECT_THAT(restored.prompt, HasSubstr("the older snap-00000001"));
  EXPECT_THAT(restored.prompt, HasSubstr("snap-00000003 cannot be read"));
  hypervisor_.spoil_snapshot("snap-00000001");
  const auto refused = snap("restore", "snap-00000002");
  EXPECT_EQ(refused.event, "refused");
  EXPECT_EQ(refused.state, "running");
  EXPECT_EQ(refused.snapshot, "snap-00000002");
  EXPECT_EQ(hypervisor_.resets(), 1);
}

TEST_F(SnapshotTest, AMemoryThatDoesNotFitOnTheDiskIsRefused) {
  images_->free_bytes = (1ull << 30) + (64ull << 20);
  EXPECT_EQ(snap("take", "snap-00000001", 0).event, "running");
  const auto refused = snap("take", "snap-00000002", 1);
  EXPECT_EQ(refused.event, "refused");
  EXPECT_THAT(refused.errormsg, HasSubstr("must stay free"));
}

TEST_F(SnapshotTest, DeletingIsIdempotentAndADesktopsEndWithItsRun) {
  snap("take", "snap-00000001");
  EXPECT_EQ(snap("delete", "snap-00000001").event, "running");
  EXPECT_EQ(snap("delete", "snap-00000001").event, "running");
  snap("take", "snap-00000002");
  EXPECT_EQ(snap("take", "../../etc/x").event, "refused");
  ask("image/stop", kDesktop);
  EXPECT_FALSE(std::filesystem::exists(vm_folder(kDesktop) / "snapshots.json"));
  const auto refused = snap("restore", "snap-00000002");
  EXPECT_EQ(refused.event, "refused");
  EXPECT_EQ(refused.state, "stopped");
  EXPECT_THAT(refused.errormsg, HasSubstr("end with its run"));
  EXPECT_EQ(snap("delete", "snap-00000002").event, "stopped");
}

TEST(Seed, IsWhatCloudInitReads) {
  const auto insid = *InstanceId::parse("VD0000beef");
  EXPECT_EQ(seed_meta_data(insid, {.hostname = "pc-7", .user = {}, .ssh_key = {}, .password_hash = {}}),
            "{\"instance-id\":\"VD0000beef\",\"local-hostname\":\"pc-7\"}\n");
  const msg::FirstBoot told{"pc-7", "alice", "ssh-ed25519 AAAA \"a\": [b", "$6$salt$hash"};
  const auto user_data = seed_user_data(told);
  ASSERT_TRUE(user_data.starts_with("#cloud-config\n{"));
  const auto json = nlohmann::json::parse(user_data.substr(user_data.find('\n')));
  EXPECT_EQ(json["users"][0]["ssh_authorized_keys"][0], told.ssh_key);
  EXPECT_EQ(json["users"][0]["lock_passwd"], false);
  EXPECT_EQ(json["users"][0]["hashed_passwd"], told.password_hash);
  const auto disk = seed_disk(insid, told);
  EXPECT_EQ(disk.size(), 512u << 10);
  EXPECT_EQ(disk.substr(43, 19), "CIDATA     FAT12   ");
  EXPECT_THAT(disk, HasSubstr(user_data));
  EXPECT_EQ(disk, seed_disk(insid, told));
}

TEST(Limits, HaveAFloorAndTheKernelsUnits) {
  EXPECT_EQ(cpu_quota_us({}, 2), std::nullopt);
  EXPECT_EQ(cpu_quota_us({.cpu_percent = 150}, 2), 75'000);
  EXPECT_EQ(cpu_quota_us({.cpu_percent = 1}, 1), 10'000);
  EXPECT_EQ(cpu_quota_us({.cpu_percent = 10}, 64), 1'000);
  EXPECT_EQ(cpu_shares({}, true), 100u);
  EXPECT_EQ(cpu_shares({}, false), 1024u);
  EXPECT_EQ(cpu_shares({.cpu_weight = 1}, false), 10u);
}

}  // namespace
}  // namespace educloud::nc
