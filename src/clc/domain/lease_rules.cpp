#include "clc/domain/lease_rules.hpp"

#include <algorithm>

namespace educloud::clc {

using task::Phase;
using task::State;

std::int64_t relocate_after_ms(int tries) {
  return std::min<std::int64_t>(60'000, 5'000LL << std::clamp(tries, 0, 8));
}

std::string lost_text(const std::string& node) {
  return "node " + node + " is lost";
}

LostPlan lost_plan(const Task& task) {
  if (is_walrus_task(task.kind) || task.state.state == State::gone || task.node.empty())
    return LostPlan::nothing;
  if (task.kind != TaskKind::run) {
    const bool is_users_turn = task.state == task::TaskState{Phase::editing, State::stopped} && !task.op_open;
    const bool is_said = task.failed && task.errormsg.starts_with(lost_text(task.node));
    return is_users_turn || is_said ? LostPlan::nothing : LostPlan::wait;
  }
  if (task.state.state == State::deleting) return LostPlan::end;
  if (task.state.state == State::stopped) return LostPlan::nothing;
  if (task.op == "image/stop") return LostPlan::stop;
  // Failed or given up: the user decides.
  const bool is_init = task.state == task::TaskState{Phase::preparing, State::init};
  return is_init && !task.op_open ? LostPlan::nothing : LostPlan::move;
}

}  // namespace educloud::clc
