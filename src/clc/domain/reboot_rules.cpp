#include "clc/domain/reboot_rules.hpp"

#include <algorithm>
#include <tuple>

namespace educloud::clc {

using task::Phase;
using task::State;

RebootPlan reboot_plan(const Task& task, bool autostart) {
  const bool is_up = task.state == task::TaskState{Phase::editing, State::running} ||
                     task.state == task::TaskState{Phase::editing, State::paused};
  if (is_walrus_task(task.kind) || task.kind == TaskKind::push || !is_up) return RebootPlan::nothing;
  // The node does again what it had not answered: it stops, starts, or looks where a moving VM is.
  const bool is_redone = task.op == "image/stop" || task.op == "image/run" || task.op == "instance/migrate";
  if (task.op_open && is_redone) return RebootPlan::nothing;
  return autostart && task.kind == TaskKind::run ? RebootPlan::start : RebootPlan::stop;
}

void order_restarts(std::vector<Restart>& restarts) {
  const auto rank = [](const Restart& one) { return std::tuple(!one.is_server, one.created_at, one.row); };
  std::sort(restarts.begin(), restarts.end(),
            [&](const Restart& a, const Restart& b) { return rank(a) < rank(b); });
}

std::string reboot_text(const Task& task) {
  const std::string what = "node " + task.node + " was restarted, and the VM ended with it: ";
  if (task.kind == TaskKind::run) return what + "start it again";
  return what + "its changes are kept, start it again or submit";
}

}  // namespace educloud::clc
