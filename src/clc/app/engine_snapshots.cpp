// What the end of a snapshot operation makes of its row.
#include "clc/app/engine.hpp"
#include "clc/store/snapshots.hpp"
#include "common/obs/log.hpp"

namespace educloud::clc {
namespace {

/// Why the node did not do what `op` asked; empty: it did.
std::string failure(const Task& task, const task::Transition& row, const msg::TaskStatus* status) {
  if (row.action != task::Action::none) return "interrupted: the VM was asked for something else meanwhile";
  if (status == nullptr) return task.errormsg;  // timed out
  if (!status->snapshot.empty() && row.event != task::Event::refused && row.event != task::Event::failed)
    return {};
  if (!status->errormsg.empty()) return status->errormsg.substr(0, 2000);
  return "the VM came to an end meanwhile";
}

}  // namespace

/// `before`: the task with its open snapshot command; `task`: after `row`.
void Engine::follow_snapshot(store::Sql& sql, const Task& before, const Task& task,
                             const task::Transition& row, const msg::TaskStatus* status) {
  // Any command that follows takes the place of the present one, so its answer will not count any more.
  if (task.op_open && row.action == task::Action::none) return;
  const auto command = msg::parse<msg::Command>(before.command);
  if (!command) return;
  auto one = store::find_snapshot(sql, before.insid, command->snapshot);
  if (!one) return;
  const std::string why = failure(task, row, status);
  if (before.op == "snapshot/take") {
    one->state = why.empty() ? "ready" : "failed";
    one->error = why;
  } else if (before.op == "snapshot/restore" && why.empty() && status->snapshot != one->snapid) {
    one->state = "failed";
    one->error = "damaged: " + status->snapshot.substr(0, 20) + " was restored instead";
  } else if (before.op == "snapshot/delete" && why.empty()) {
    store::remove_snapshot(sql, one->snapid);
    return;
  }
  store::update_snapshot(sql, *one);
  obs::info("snapshot.state",
            {{"tid", task.tid}, {"snapshot", one->snapid}, {"op", before.op}, {"error", why}});
}

}  // namespace educloud::clc
