#include "clc/domain/reboot_rules.hpp"

#include <gmock/gmock.h>

namespace educloud::clc {
namespace {

using task::Phase;
using task::State;
using testing::HasSubstr;

Task task_at(State state, const std::string& op = "image/run", bool op_open = false) {
  Task task;
  task.kind = TaskKind::run;
  task.node = "nc1";
  task.state = {state == State::init ? Phase::preparing : Phase::editing, state};
  task.op = op;
  task.op_open = op_open;
  return task;
}

TEST(RebootRulesTest, OnlyWhatRanIsGone) {
  for (const auto state : {State::running, State::paused}) {
    EXPECT_EQ(reboot_plan(task_at(state), true), RebootPlan::start);
    EXPECT_EQ(reboot_plan(task_at(state), false), RebootPlan::stop);
  }
  for (const auto state : {State::init, State::booting, State::stopped, State::deleting, State::migrating})
    EXPECT_EQ(reboot_plan(task_at(state), true), RebootPlan::nothing) << to_string(state);
}

TEST(RebootRulesTest, ANodeDoesAgainWhatItHadNotAnswered) {
  for (const char* op : {"image/stop", "image/run", "instance/migrate"})
    EXPECT_EQ(reboot_plan(task_at(State::running, op, true), true), RebootPlan::nothing) << op;
  EXPECT_EQ(reboot_plan(task_at(State::running, "instance/pause", true), true), RebootPlan::start)
      << "there is nothing left to pause";
  EXPECT_EQ(reboot_plan(task_at(State::running, "image/stop", false), true), RebootPlan::start)
      << "a stop that was given up";
}

TEST(RebootRulesTest, AnImageInWorkIsStoppedAndItsChangesAreKept) {
  auto task = task_at(State::running);
  task.kind = TaskKind::modify;
  EXPECT_EQ(reboot_plan(task, true), RebootPlan::stop);
  EXPECT_THAT(reboot_text(task), HasSubstr("changes are kept"));
  EXPECT_THAT(reboot_text(task_at(State::running)), HasSubstr("node nc1 was restarted"));
}

TEST(RebootRulesTest, ServersFirstThenTheOldest) {
  std::vector<Restart> all{{1, false, 10}, {2, true, 50}, {3, false, 5}, {4, true, 40}, {5, false, 5}};
  order_restarts(all);
  std::vector<std::int64_t> rows;
  for (const auto& one : all) rows.push_back(one.row);
  EXPECT_THAT(rows, testing::ElementsAre(4, 2, 3, 5, 1));
}

}  // namespace
}  // namespace educloud::clc
