#include "nc/app/lease_keeper.hpp"

#include "common/msg/lease.hpp"
#include "nc/app/inventory.hpp"
#include "nc/app/lease_file.hpp"
#include "nc/app/sweeper.hpp"
#include "unit/nc/node_fixture.hpp"

namespace educloud::nc {
namespace {

using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

TEST(Lease, CountsFromWhenAGrantCame) {
  Lease lease(1000, std::nullopt);
  EXPECT_TRUE(lease.may_start(31'000)) << "after its start a node has time to hear";
  EXPECT_FALSE(lease.may_start(31'001));
  EXPECT_TRUE(lease.granted(3, 40'000));
  EXPECT_TRUE(lease.may_start(70'000));
  EXPECT_TRUE(lease.may_run_exclusive(85'000));
  EXPECT_FALSE(lease.may_run_exclusive(85'001));
  EXPECT_FALSE(lease.granted(2, 90'000)) << "of before its loss";
  EXPECT_FALSE(lease.may_start(90'000));
  EXPECT_EQ(lease.epoch(), 3);
}

TEST(Lease, ARestartDoesNotRenewIt) {
  EXPECT_FALSE(Lease(100'000, 60'000).may_start(100'000));
  EXPECT_TRUE(Lease(100'000, 80'000).may_start(105'000));
  EXPECT_TRUE(Lease(100'000, 900'000).may_start(100'000)) << "of a boot before this one";
}

class LeaseTest : public NodeTest {
 protected:
  void SetUp() override {
    NodeTest::SetUp();
    options_.host = "nc1";
    options_.state_dir = prefix_;
    options_.patience = std::chrono::milliseconds{0};
    keeper_ = std::make_unique<LeaseKeeper>(options_, hypervisor_, clock_);
  }
  void grant(std::int64_t epoch, const std::string& host = "nc1", const std::string& from = "cc-cc1") {
    msg::Lease lease;
    lease.ccid = "cc1";
    lease.grants = {{host, epoch}};
    take(msg::serialize(lease), from);
  }
  void take(const std::string& body, const std::string& from = "cc-cc1") {
    keeper_->take({"nc_lease_queue.nc1", "nc_cmd", "lease.nc1", from, body, false,
                   [this](bus::Verdict verdict) { verdict_ = verdict; }});
  }
  void pass(int seconds) { clock_.advance(std::chrono::seconds{seconds}); }
  bool may_start() { return keeper_->may_start({}).has_value(); }
  void start_server(bool exclusive) {
    VmSpec spec;
    spec.insid = *InstanceId::parse(exclusive ? "VS0000beef" : "VD0000beef");
    spec.exclusive = exclusive;
    ASSERT_TRUE(hypervisor_.define_and_start(spec));
  }

  LeaseKeeper::Options options_;
  std::unique_ptr<LeaseKeeper> keeper_;
  bus::Verdict verdict_ = bus::Verdict::requeue;
};

TEST_F(LeaseTest, NothingNewStartsWithoutWordFromClc) {
  EXPECT_TRUE(may_start());
  pass(31);
  const auto refused = keeper_->may_start({});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::unavailable);
  EXPECT_THAT(refused.error().message, HasSubstr("no word from clc for 31 s"));
  grant(1);
  EXPECT_EQ(verdict_, bus::Verdict::ack);
  EXPECT_TRUE(may_start());
  EXPECT_EQ(read_lease_file(prefix_), clock_.boot_ms());
}

TEST_F(LeaseTest, OnlyAGrantOfItsOwnFromACcCounts) {
  pass(31);
  grant(1, "nc2");
  EXPECT_FALSE(may_start());
  grant(1, "nc1", "nc-nc2");
  EXPECT_EQ(verdict_, bus::Verdict::reject);
  take("{");
  EXPECT_EQ(verdict_, bus::Verdict::reject);
  EXPECT_FALSE(may_start());
  grant(5);
  pass(31);
  grant(4);
  EXPECT_FALSE(may_start()) << "an old epoch";
}

TEST_F(LeaseTest, AGrantThatComesInTimeIsWaitedFor) {
  pass(31);
  options_.patience = std::chrono::seconds{60};
  keeper_ = std::make_unique<LeaseKeeper>(options_, hypervisor_, clock_);
  pass(31);
  std::jthread later([this] { grant(1); });
  EXPECT_TRUE(may_start());
  later.join();
  pass(31);
  std::stop_source stop;
  std::jthread stopper([&] { stop.request_stop(); });
  EXPECT_EQ(keeper_->may_start(stop.get_token()).error().code, ErrorCode::cancelled);
}

TEST_F(LeaseTest, AServerEndsWithTheLeaseAndADesktopRunsOn) {
  start_server(true);
  start_server(false);
  grant(1);
  pass(45);
  keeper_->tick();
  EXPECT_EQ(hypervisor_.list()->size(), 2u);
  pass(1);
  keeper_->tick();
  ASSERT_EQ(hypervisor_.list()->size(), 1u);
  EXPECT_EQ(hypervisor_.list()->front().insid.str(), "VD0000beef");
  const auto server = *InstanceId::parse("VS0000beef");
  grant(1);
  EXPECT_TRUE(keeper_->has_ended(server));
  EXPECT_FALSE(keeper_->has_ended(server)) << "its next end is another";
  pass(46);
  EXPECT_TRUE(keeper_->has_ended(server)) << "whoever ended it";
}

TEST_F(LeaseTest, CommandsAreRefusedWithoutALease) {
  OperationOptions operations;
  operations.layout = Layout(prefix_);
  operations.limits = {
      .max_memory_mib = 4096, .max_cpus = 4, .advertise = "127.0.0.1", .guest_egress = false};
  operations.stop_grace = std::chrono::milliseconds{0};
  operations.lazy.proxy = false;
  operations.may_start = [this](std::stop_token stop) { return keeper_->may_start(std::move(stop)); };
  node_ = std::make_unique<Node>(operations, "nc1", *inbox_, hypervisor_, *images_, clock_);
  pass(31);
  const auto refused = ask("image/prepare", kDesktop);
  EXPECT_EQ(refused.event, "failed");
  EXPECT_THAT(refused.errormsg, HasSubstr("no word from clc"));
  grant(1);
  EXPECT_EQ(ask("image/prepare", kDesktop).event, "prepared");
  pass(31);
  EXPECT_EQ(ask("image/run", kDesktop).event, "failed");
  EXPECT_EQ(hypervisor_.starts(), 0);
  grant(1);
  EXPECT_EQ(ask("image/run", kDesktop).event, "running");
  pass(100);
  EXPECT_EQ(ask("image/stop", kDesktop).event, "stopped") << "that is always allowed";
}

class ReconcileTest : public NodeTest {
 protected:
  std::vector<msg::Inventory> inventory() {
    InventoryReporter::Options options;
    options.layout = Layout(prefix_);
    options.host = "nc1";
    InventoryReporter reporter(options, *inbox_, hypervisor_, *bus_, clock_, [] { return 7; });
    auto taken = reporter.take();
    return taken ? *taken : std::vector<msg::Inventory>{};
  }
};

TEST_F(ReconcileTest, AnOlderRunsVmMakesRoomForTheNewOne) {
  ask("image/prepare", kDesktop);
  auto old = command("image/run", kDesktop);
  old.epoch = 1;
  EXPECT_EQ(ask(old).event, "running");
  auto fresh = command("image/run", kDesktop);
  fresh.epoch = 2;
  EXPECT_EQ(ask(fresh).event, "running");
  EXPECT_EQ(hypervisor_.starts(), 2);
  EXPECT_EQ(hypervisor_.spec(vm(kDesktop))->epoch, 2);
}

TEST_F(ReconcileTest, TheInventoryNamesVmsAndTasks) {
  ask("image/prepare", kDesktop);
  auto run = command("image/run", kDesktop);
  run.epoch = 4;
  ask(run);
  auto parts = inventory();
  ASSERT_EQ(parts.size(), 1u);
  EXPECT_EQ(parts[0].lease_epoch, 7);
  ASSERT_EQ(parts[0].vms.size(), 1u);
  EXPECT_EQ(parts[0].vms[0].tid, kDesktop);
  EXPECT_EQ(parts[0].vms[0].epoch, 4);
  ASSERT_EQ(parts[0].tasks.size(), 1u);
  EXPECT_EQ(parts[0].tasks[0].cmdid, run.cmdid);
  EXPECT_EQ(parts[0].tasks[0].finished, 1);
  auto forget = command("task/delete", kDesktop);
  forget.epoch = 4;
  ask(forget);
  parts = inventory();
  EXPECT_TRUE(parts[0].vms.empty());
  EXPECT_TRUE(parts[0].tasks.empty()) << "nothing is left of it";
  ASSERT_TRUE(write_record(Layout(prefix_), vm(kModify), {kModify, "IMG00000001", 3}));
  parts = inventory();
  ASSERT_EQ(parts[0].vms.size(), 1u);
  EXPECT_EQ(parts[0].vms[0].state, "shutoff");
  hypervisor_.set_reachable(false);
  EXPECT_TRUE(inventory().empty()) << "not knowing is not none";
}

TEST(Inventory, LargeOnesComeInPartsThatFitTheWire) {
  std::vector<msg::InventoryVm> vms;
  std::vector<msg::InventoryTask> tasks;
  const std::string tid = "IMG00000001:IMG00000001:TVD0000beef", cmdid = new_command_id().str();
  for (int i = 0; i < 250; ++i)
    vms.push_back({"TVD0000beef", tid, cmdid, "running", 9'000'000'000'000'000, 1});
  for (int i = 0; i < 120; ++i)
    tasks.push_back({tid, cmdid, "image/prepare", 9'000'000'000'000'000, 9'000'000'000'000'000,
                     9'000'000'000'000'000, 1});
  msg::Inventory frame;
  frame.host = std::string(40, 'h');
  frame.round = cmdid;
  const auto parts = split_inventory(frame, vms, tasks);
  ASSERT_EQ(parts.size(), 3u);
  std::size_t seen_vms = 0, seen_tasks = 0;
  for (const auto& part : parts) {
    EXPECT_EQ(part.parts, 3);
    seen_vms += part.vms.size();
    seen_tasks += part.tasks.size();
    EXPECT_LT(msg::serialize(part).size() + 100, limits::kMessageBytes);
    EXPECT_TRUE(msg::parse<msg::Inventory>(msg::serialize(part)));
  }
  EXPECT_EQ(seen_vms, 250u);
  EXPECT_EQ(seen_tasks, 120u);
  EXPECT_EQ(split_inventory(frame, {}, {}).size(), 1u) << "an empty node says so";
}

class SweeperTest : public ReconcileTest {
 protected:
  void SetUp() override {
    ReconcileTest::SetUp();
    sweeper_ = std::make_unique<OrphanSweeper>(Layout(prefix_), *inbox_, hypervisor_, *node_, clock_);
  }
  std::filesystem::path make(const std::string& name, bool is_old = true) {
    const auto path = prefix_ / name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << "x";
    if (is_old)
      std::filesystem::last_write_time(path,
                                       std::filesystem::file_time_type::clock::now() - std::chrono::hours{1});
    return path;
  }
  /// `minutes` of looks.
  void pass(int minutes) {
    for (int i = 0; i < minutes; ++i) {
      clock_.advance(std::chrono::seconds{60});
      sweeper_->tick();
    }
  }
  static bool exists(const std::filesystem::path& path) { return std::filesystem::exists(path); }
  std::unique_ptr<OrphanSweeper> sweeper_;
};

TEST_F(SweeperTest, WhatBelongsToNobodyGoesAfterTenMinutes) {
  const auto folder = make("VMs/VD0000dead/overlay.qcow2");
  const auto part = make("tmp/staging/IMG0000dead-3.part");
  const auto journal = make("tmp/staging/IMG0000dead-3.journal");
  pass(10);
  EXPECT_TRUE(exists(folder)) << "first it is only said";
  EXPECT_TRUE(exists(part));
  pass(1);
  EXPECT_FALSE(exists(folder.parent_path()));
  EXPECT_FALSE(exists(part));
  EXPECT_FALSE(exists(journal));
}

TEST_F(SweeperTest, WhatIsSomebodysStays) {
  ask("image/prepare", kDesktop);
  ask("image/run", kDesktop);
  const auto part = make("tmp/staging/IMG00000001-3.part");
  const auto flat = make("tmp/staging/IMG0000dead-3.flat");
  const auto fresh = make("tmp/staging/IMG0000dead-4.part", false);
  const auto mystery = make("VMs/somebody-elses/file");
  pass(30);
  EXPECT_TRUE(exists(overlay(kDesktop)));
  EXPECT_TRUE(exists(part)) << "the task's version";
  EXPECT_TRUE(exists(flat)) << "made without a task";
  EXPECT_TRUE(exists(fresh)) << "written to just now";
  EXPECT_TRUE(exists(mystery)) << "no name of ours";
}

TEST_F(SweeperTest, AUsersWorkIsNeverRemovedOnItsOwn) {
  const auto modify = make("VMs/TMP0000beef/overlay.qcow2");
  const auto build = make("tmp/images/IMG0000dead/machine");
  pass(60);
  EXPECT_TRUE(exists(modify));
  EXPECT_TRUE(exists(build));
}

TEST_F(SweeperTest, AHypervisorThatDoesNotAnswerIsNoReasonToRemove) {
  const auto folder = make("VMs/VD0000dead/overlay.qcow2");
  pass(2);
  hypervisor_.set_reachable(false);
  pass(30);
  EXPECT_TRUE(exists(folder));
  hypervisor_.set_reachable(true);
  VmSpec spec;
  spec.insid = *InstanceId::parse("VD0000dead");
  ASSERT_TRUE(hypervisor_.define_and_start(spec));
  pass(30);
  EXPECT_TRUE(exists(folder)) << "its VM runs";
}

}  // namespace
}  // namespace educloud::nc
