#include "clc/domain/reconcile.hpp"

#include <gmock/gmock.h>

#include "clc/domain/lease_rules.hpp"
#include "clc/domain/task_rules.hpp"

namespace educloud::clc {
namespace {

using task::Phase;
using task::State;

constexpr std::int64_t kNow = 1'700'000'000'000;
const std::string kTid = "IMG00000001:IMG00000001:VD00000002";

Task running_task() {
  Task task;
  task.id = 1;
  task.tid = kTid;
  task.insid = "VD00000002";
  task.state = {Phase::editing, State::running};
  task.cluster = "cc1";
  task.node = "nc1";
  task.op = "image/run";
  task.cmdid = "c2";
  task.epoch = 3;
  task.attempt = 2;
  task.updated_at = task.cmd_sent_at = kNow - 120'000;
  return task;
}
msg::InventoryVm vm_of(const Task& task) {
  return {task.insid, task.tid, task.cmdid, "running", task.epoch, 0};
}
msg::InventoryTask entry_of(const Task& task, int finished = 1) {
  return {task.tid, task.cmdid, task.op, task.epoch, task.attempt, 7, finished};
}

/// A node nc1 that holds what it should, until a test changes something.
struct World {
  explicit World(Task of) : task(std::move(of)) {
    holdings.host = "nc1";
    holdings.cluster = "cc1";
    holdings.vms = {vm_of(task)};
    holdings.tasks = {entry_of(task)};
  }
  std::vector<Fix> fixes() const {
    Knowledge knowledge;
    if (is_known) knowledge.by_tid.emplace(task.tid, task);
    if (is_known && task.node == "nc1" && task.state.state != State::gone) knowledge.here = {task};
    knowledge.let_go = let_go_elsewhere;
    return reconcile(holdings, knowledge, kNow);
  }
  std::set<std::string> let_go_here() const {
    Knowledge knowledge;
    knowledge.here = {task};
    return let_go(holdings, knowledge, kNow);
  }
  /// "kind kind", as the fixes come.
  std::string kinds() const {
    std::string out;
    for (const auto& fix : fixes()) out += (out.empty() ? "" : " ") + std::string(to_string(fix.kind));
    return out;
  }
  Task task;
  bool is_known = true;
  std::set<std::string> let_go_elsewhere;
  Holdings holdings;
};

TEST(Reconcile, ANodeThatHoldsWhatItShouldIsLeftAlone) {
  EXPECT_EQ(World(running_task()).kinds(), "");
}

TEST(Reconcile, ACommandThatTheNodeLacksIsSentAgain) {
  World world(running_task());
  world.task.state = {Phase::preparing, State::init};
  world.task.op_open = true;
  world.holdings.tasks.clear();
  world.holdings.vms.clear();
  EXPECT_EQ(world.kinds(), "resend");
  world.holdings.tasks = {entry_of(world.task, 0)};
  EXPECT_EQ(world.kinds(), "") << "the node works on it";
  world.holdings.tasks = {entry_of(world.task, 1)};
  EXPECT_EQ(world.kinds(), "resend") << "its answer was lost";
  world.holdings.tasks[0].cmdid = "c1";
  world.holdings.tasks[0].attempt = 1;
  EXPECT_EQ(world.kinds(), "resend") << "it is at an older one";
  world.task.cmd_sent_at = kNow - 5'000;
  EXPECT_EQ(world.kinds(), "") << "it may be on its way";
}

TEST(Reconcile, ARunningTaskWithoutItsVmIsAskedAbout) {
  World world(running_task());
  world.holdings.vms.clear();
  EXPECT_EQ(world.kinds(), "resend");
  world.holdings.tasks.clear();
  EXPECT_EQ(world.kinds(), "resend") << "the node lost its inbox too";
  world.task.resends = 1;
  EXPECT_EQ(world.kinds(), "end") << "and does not answer";
  world.holdings.tasks = {entry_of(world.task)};
  EXPECT_EQ(world.kinds(), "resend") << "it will say how it ended";
  world.holdings.vms = {vm_of(world.task)};
  EXPECT_EQ(world.kinds(), "") << "the VM runs, that is what counts";
}

TEST(Reconcile, AVmOfATaskElsewhereGetsAFarewellThatCounts) {
  World world(running_task());
  world.task.node = "nc2";
  world.task.epoch = 4;
  const auto fixes = world.fixes();
  ASSERT_EQ(fixes.size(), 1u);
  EXPECT_EQ(fixes[0].kind, Fix::Kind::farewell);
  EXPECT_EQ(fixes[0].epoch, 4);
  EXPECT_EQ(fixes[0].attempt, 3);
}

TEST(Reconcile, ALaterRunElsewhereIsFollowedOnlyIfItsNodeHasLetItGo) {
  World world(running_task());
  world.task.node = "nc2";
  world.task.epoch = 2;
  EXPECT_EQ(world.kinds(), "orphan") << "it may be a lie";
  world.let_go_elsewhere = {kTid};
  const auto fixes = world.fixes();
  ASSERT_EQ(fixes.size(), 1u);
  EXPECT_EQ(fixes[0].kind, Fix::Kind::adopt);
  EXPECT_EQ(fixes[0].told.epoch, 3);
  world.holdings.tasks[0].op = "task/delete";
  EXPECT_EQ(world.kinds(), "orphan") << "it is going";
  world.holdings.tasks.clear();
  EXPECT_EQ(world.kinds(), "orphan") << "nobody can tell by which command it runs";
  world.holdings.vms[0].state = "shutoff";
  EXPECT_EQ(world.kinds(), "farewell");
}

TEST(Reconcile, ANodeLetsGoOnlyOfWhatItHasNothingOf) {
  World world(running_task());
  EXPECT_TRUE(world.let_go_here().empty());
  world.holdings.vms.clear();
  EXPECT_TRUE(world.let_go_here().empty()) << "it can still tell how it ended";
  world.holdings.tasks.clear();
  EXPECT_EQ(world.let_go_here(), std::set<std::string>{kTid});
  world.task.op_open = true;
  EXPECT_TRUE(world.let_go_here().empty());
  world.task.op_open = false;
  world.task.state.state = State::stopped;
  EXPECT_TRUE(world.let_go_here().empty()) << "of one that stands still it need not know";
}

TEST(Reconcile, WhatIsLeftOfAnEndedTaskIsTakenAway) {
  World world(running_task());
  world.task.state = {Phase::submitting, State::gone};
  EXPECT_EQ(world.kinds(), "farewell");
  world.holdings.vms[0].state = "shutoff";
  EXPECT_EQ(world.kinds(), "farewell") << "its folder too";
  world.task.updated_at = kNow - 3'000;
  EXPECT_EQ(world.kinds(), "") << "it may be going right now";
}

TEST(Reconcile, AFarewellThatWasLostIsSaidAgain) {
  World world(running_task());
  world.holdings.vms.clear();
  world.task.state = {Phase::submitting, State::gone};
  const auto fixes = world.fixes();
  ASSERT_EQ(fixes.size(), 1u);
  EXPECT_EQ(fixes[0].kind, Fix::Kind::farewell);
  EXPECT_EQ(fixes[0].insid, "VD00000002");
  EXPECT_EQ(fixes[0].epoch, 3);
  EXPECT_EQ(fixes[0].attempt, 3);
  world.task.state = {Phase::editing, State::running};
  world.task.node = "nc2";
  EXPECT_EQ(world.kinds(), "farewell") << "its desktop went elsewhere";
  world.holdings.tasks[0].op = "task/delete";
  EXPECT_EQ(world.kinds(), "") << "the node has heard it";
  world.holdings.tasks[0].op = "image/run";
  world.is_known = false;
  EXPECT_EQ(world.kinds(), "") << "of a task that was never known here";
}

TEST(Reconcile, AVmThatNobodyKnowsIsAnOrphanAndFilesAreNeverTouched) {
  World world(running_task());
  world.is_known = false;
  const auto fixes = world.fixes();
  ASSERT_EQ(fixes.size(), 1u);
  EXPECT_EQ(fixes[0].kind, Fix::Kind::orphan);
  EXPECT_EQ(fixes[0].epoch, 3);
  EXPECT_EQ(fixes[0].attempt, 3);
  world.holdings.vms[0].state = "shutoff";
  EXPECT_EQ(world.kinds(), "stray");
  world.holdings.vms[0] = {"VD00000002", "", "", "running", 0, 0};
  EXPECT_EQ(world.kinds(), "stray") << "without a task there is nobody to say farewell to";
  world.holdings.vms[0].tid = "IMG00000001:IMG00000001:VD00000099";
  EXPECT_EQ(world.kinds(), "stray") << "a name that is not its own";
}

TEST(Reconcile, AStoppedTasksVmIsStopped) {
  World world(running_task());
  world.task.state = {Phase::editing, State::stopped};
  EXPECT_EQ(world.kinds(), "stop");
  world.task.op_open = true;
  world.holdings.tasks = {entry_of(world.task, 0)};
  EXPECT_EQ(world.kinds(), "") << "the stop is on its way";
}

TEST(Reconcile, AnOlderDatabaseGoesOnFromTheNode) {
  World world(running_task());
  world.holdings.tasks[0].cmdid = "c9";
  world.holdings.tasks[0].attempt = 9;
  const auto fixes = world.fixes();
  ASSERT_EQ(fixes.size(), 1u);
  EXPECT_EQ(fixes[0].kind, Fix::Kind::adopt);
  EXPECT_EQ(fixes[0].told.cmdid, "c9");
  world.holdings.tasks[0].op = "task/delete";
  EXPECT_EQ(world.kinds(), "") << "it is going";
}

TEST(Reconcile, NumbersThatCannotBeAreNotTakenOver) {
  World world(running_task());
  world.holdings.tasks[0].cmdid = "c9";
  world.holdings.tasks[0].epoch = world.task.epoch + 1'000'000;
  EXPECT_EQ(world.kinds(), "adopt");
  ++world.holdings.tasks[0].epoch;
  EXPECT_EQ(world.kinds(), "orphan");
  EXPECT_EQ(world.fixes()[0].tid, kTid);
  world.holdings.tasks[0].epoch = world.task.epoch;
  world.holdings.tasks[0].attempt = world.task.attempt + 1'000'001;
  EXPECT_EQ(world.kinds(), "orphan");
  world.task.node = "nc2";
  world.task.epoch = 2;
  world.let_go_elsewhere = {kTid};
  EXPECT_EQ(world.kinds(), "orphan") << "nor from elsewhere";
}

TEST(Reconcile, AClockSetBackDoesNotHoldItUp) {
  World world(running_task());
  world.holdings.vms.clear();
  world.task.updated_at = world.task.cmd_sent_at = kNow + 3'600'000;
  EXPECT_EQ(world.kinds(), "resend");
}

TEST(Reconcile, AdoptedTasksStandWhereTheirCommandBegins) {
  for (const auto* op : {"image/prepare", "image/run", "image/stop", "image/submit", "task/delete"}) {
    const auto state = state_before(op);
    ASSERT_TRUE(state) << op;
    const auto known = task::states();
    EXPECT_NE(std::find(known.begin(), known.end(), *state), known.end()) << op;
    EXPECT_TRUE(task::step(*state, task::Event::failed)) << op;
  }
  EXPECT_FALSE(state_before("image/import"));
}

TEST(ResendBackOff, DoublesUpToFiveMinutes) {
  EXPECT_EQ(resend_after_ms(0), 30'000);
  EXPECT_EQ(resend_after_ms(1), 60'000);
  EXPECT_EQ(resend_after_ms(3), 240'000);
  EXPECT_EQ(resend_after_ms(4), 300'000);
  EXPECT_EQ(resend_after_ms(1'000'000), 300'000);
}

TEST(LostPlan, DesktopsMoveAndWorkWaits) {
  Task task = running_task();
  EXPECT_EQ(lost_plan(task), LostPlan::move);
  task.op = "image/stop";
  EXPECT_EQ(lost_plan(task), LostPlan::stop);
  task.state.state = State::stopped;
  EXPECT_EQ(lost_plan(task), LostPlan::nothing);
  task.state.state = State::deleting;
  EXPECT_EQ(lost_plan(task), LostPlan::end);
  task.state = {Phase::preparing, State::init};
  task.op = "image/prepare";
  task.op_open = true;
  EXPECT_EQ(lost_plan(task), LostPlan::move);
  task.op_open = false;
  EXPECT_EQ(lost_plan(task), LostPlan::nothing) << "it failed: the user decides";
  task.kind = TaskKind::modify;
  task.op_open = true;
  EXPECT_EQ(lost_plan(task), LostPlan::wait);
  task.failed = true;
  task.errormsg = lost_text("nc1") + "; it goes on";
  EXPECT_EQ(lost_plan(task), LostPlan::nothing) << "it says so already";
  task.kind = TaskKind::import;
  EXPECT_EQ(lost_plan(task), LostPlan::nothing);
}

TEST(LostPlan, EveryStateOfADesktopThatMovesHasARowForIt) {
  for (const auto& state : task::states()) {
    Task task = running_task();
    task.state = state;
    task.op_open = true;
    const auto plan = lost_plan(task);
    if (state.phase == Phase::submitting) continue;  // a desktop is never there
    if (plan == LostPlan::move) {
      EXPECT_TRUE(task::step(state, task::Event::lost)) << to_string(state.state);
    } else {
      EXPECT_FALSE(task::step(state, task::Event::lost)) << to_string(state.state);
    }
  }
}

TEST(LostPlan, LooksForANodeLessAndLessOften) {
  EXPECT_EQ(relocate_after_ms(0), 5'000);
  EXPECT_EQ(relocate_after_ms(2), 20'000);
  EXPECT_EQ(relocate_after_ms(100), 60'000);
}

}  // namespace
}  // namespace educloud::clc
