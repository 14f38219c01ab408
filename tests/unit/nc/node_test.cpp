#include "nc/app/node.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/ids.hpp"
#include "common/bus/memory_bus.hpp"
#include "nc/hypervisor/fake_hypervisor.hpp"
#include "unit/nc/fake_image_tools.hpp"

namespace educloud::nc {
namespace {

using ::testing::HasSubstr;

constexpr const char* kDesktop = "IMG00000001:IMG00000001:VD0000beef";
constexpr const char* kModify = "IMG00000001:IMG00000001:TMP0000beef";
constexpr const char* kBuild = "IMG00000001:IMG00000002:TMP0000cafe";

/// A node with a fake hypervisor and fake transfers; commands go in and statuses come out through a broker in
/// memory.
class NodeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char pattern[] = "/tmp/educloud-node-XXXXXX";
    prefix_ = mkdtemp(pattern);
    broker_.bind("nc_cmd", "nc1", "nc_cmd_queue.nc1");
    broker_.bind("cc_status", "taskstatus.nc-nc1", "cc_status_queue");
    cc_ = broker_.connect("cc-cc1");
    cc_->subscribe({"cc_status_queue", 64, [this](bus::Delivery delivery) {
                      told_.push_back(*msg::parse<msg::TaskStatus>(delivery.body));
                      delivery.settle(bus::Verdict::ack);
                    }});
    cc_->start([] {});
    bus_ = broker_.connect("nc-nc1");
    bus_->subscribe(
        {"nc_cmd_queue.nc1", 4, [this](bus::Delivery delivery) { node_->handle(std::move(delivery)); }});
    bus_->start([] {});
    images_ = std::make_unique<FakeImageTools>(prefix_);
    boot();
  }
  void TearDown() override {
    node_.reset();
    inbox_.reset();
    std::filesystem::remove_all(prefix_);
  }

  /// A new process: what is on disk and the VMs are still there.
  void boot() {
    node_.reset();
    inbox_.reset();
    inbox::Options options;
    options.file = prefix_ / "inbox.sqlite";
    options.exchange = "cc_status";
    options.routing_key = "taskstatus.nc-nc1";
    options.nid = "nc1";
    inbox_ = std::move(*inbox::Inbox::open(options, *bus_, clock_));
    OperationOptions operations;
    operations.layout = Layout(prefix_);
    operations.limits = {
        .max_memory_mib = 4096, .max_cpus = 4, .advertise = "127.0.0.1", .guest_egress = false};
    operations.stop_grace = std::chrono::milliseconds{0};
    operations.lazy.proxy = false;
    node_ = std::make_unique<Node>(operations, "nc1", *inbox_, hypervisor_, *images_, clock_);
    ASSERT_TRUE(hypervisor_.start([this](const VmEvent& event) { node_->on_vm_event(event); }));
    node_->recover();
    node_->redo_unfinished();
  }

  msg::Command command(const std::string& op, const std::string& tid) {
    msg::Command made;
    made.op = op;
    made.tid = tid;
    made.nid = "nc1";
    made.cmdid = new_command_id().str();
    made.attempt = ++attempt_;
    made.source = msg::ImageVersion{"IMG00000001", 3, std::string(64, 'd'), 1000, 1 << 20, "raw"};
    made.source_grant = "node=nc1&expires=1&sig=x";
    made.target_imgid = tid.substr(12, 11);
    made.target_version = 4;
    auto& option = made.runtime_option.emplace();
    option.memory_mib = 128;
    option.rdp_port = 5901;
    option.web_port = 8081;
    option.display_password = "secret";
    return made;
  }
  void send(const msg::Command& one) { send(msg::serialize(one)); }
  void send(const std::string& body) {
    ASSERT_TRUE(cc_->publish({"nc_cmd", "nc1", body, new_command_id().str()}, [](bus::Outcome) {}));
    broker_.deliver_all();
  }
  void work() {
    while (node_->run_one(Lane::copies) || node_->run_one(Lane::background) ||
           node_->run_one(Lane::machines)) {
    }
    broker_.deliver_all();
  }
  /// Sends a command, runs everything, returns the last status told.
  msg::TaskStatus ask(const msg::Command& one) {
    told_.clear();
    send(one);
    work();
    return told_.empty() ? msg::TaskStatus{} : told_.back();
  }
  msg::TaskStatus ask(const std::string& op, const std::string& tid) { return ask(command(op, tid)); }
  std::vector<std::string> events() const {
    std::vector<std::string> all;
    for (const auto& status : told_) all.push_back(status.event);
    return all;
  }
  std::filesystem::path vm_folder(const std::string& tid) const { return prefix_ / "VMs" / tid.substr(24); }
  std::filesystem::path overlay(const std::string& tid) const { return vm_folder(tid) / "overlay.qcow2"; }
  static InstanceId vm(const std::string& tid) { return *InstanceId::parse(tid.substr(24)); }

  std::filesystem::path prefix_;
  ManualClock clock_;
  bus::MemoryBroker broker_;
  FakeHypervisor hypervisor_;
  std::unique_ptr<bus::Bus> cc_, bus_;
  std::unique_ptr<FakeImageTools> images_;
  std::unique_ptr<inbox::Inbox> inbox_;
  std::unique_ptr<Node> node_;
  std::vector<msg::TaskStatus> told_;
  std::int64_t attempt_ = 0;
};

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
  auto refused = ask("image/submit", kModify);
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

TEST_F(NodeTest, ASubmitThatFailedIsDoneAgain) {
  ask("image/prepare", kModify);
  ask("image/run", kModify);
  ask("image/stop", kModify);
  images_->submit_error = Error{ErrorCode::unavailable, "cc is away", {}};
  EXPECT_EQ(ask("image/submit", kModify).state, "init");
  EXPECT_EQ(ask("image/submit", kModify).event, "submitted");
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
