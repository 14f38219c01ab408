// What the reconciliation with a node's inventory makes necessary.
#include "clc/app/engine.hpp"
#include "clc/domain/reconcile.hpp"
#include "clc/store/accounts.hpp"
#include "clc/store/tasks.hpp"
#include "common/base/ids.hpp"
#include "common/obs/log.hpp"
#include "common/obs/metrics.hpp"

namespace educloud::clc {
namespace {

constexpr std::int64_t kDayMs = 24 * 3'600'000LL;

/// A command of which only the node that has it already makes anything: it repeats its status.
msg::Command reminder(const Task& task, std::int64_t now_ms) {
  msg::Command command;
  command.op = task.op;
  command.tid = task.tid;
  command.cmdid = task.cmdid;
  command.nid = task.node;
  command.ccid = task.cluster;
  command.epoch = task.epoch;
  command.attempt = task.attempt;
  command.ts = now_ms;
  command.deadline = now_ms + 60'000;
  return command;
}

/// Where the VM is reached was settled when it started. Nobody can tell its password any more.
void adopt_access(store::Sql& sql, const Task& task, const msg::InventoryTask& told) {
  const std::pair<std::string_view, int> ports[] = {{"display", told.rdp_port}, {"web", told.web_port}};
  for (const auto& [kind, port] : ports) {
    if (port == 0) continue;  // a node that does not tell
    store::hold_port(sql, task.node, kind, task.insid, port);
    store::set_display_password(sql, task.insid, "");
  }
}

/// A node speaks for itself: that it gives its VM to another one counts only where that may be.
bool may_go_to(store::Sql& sql, const Task& task, const std::string& host) {
  const auto node = HostName::parse(host) ? store::find_node(sql, host) : std::nullopt;
  return node && host != task.node && node->cluster == task.cluster && node->lost_at == 0 &&
         node->state == NodeState::enabled;
}

}  // namespace

void Engine::farewell(store::Sql& sql, const Farewell& to) {
  Task was;
  was.tid = to.tid;
  was.node = to.node;
  was.cluster = to.cluster;
  was.epoch = to.epoch;
  was.attempt = to.attempt;
  const auto command = make_command(was, "task/delete", {}, new_command_id().str(), now(), kDayMs);
  queue_command(sql, was, msg::serialize(command), command.deadline);
}

Result<> Engine::adopt(store::Sql& sql, Task task, const msg::InventoryTask& told, const std::string& node) {
  const auto before = state_before(told.op);
  if (!before) return fail(before.error());
  if (task.node != node) {
    store::free_ports(sql, task.insid);
    store::audit(sql, now(), "clc", "vm.found", task.insid, task.node + " to " + node);
    task.placement = node + ": it was there already when clc's database was restored\n";
    task.node = node;
  }
  std::optional<msg::Move> move;
  if (told.op == "instance/migrate" && may_go_to(sql, task, told.moves_to))
    move = adopt_move(sql, task, told);
  task.state = *before;
  task.op = told.op;
  task.cmdid = told.cmdid;
  task.epoch = told.epoch;
  task.attempt = told.attempt;
  task.seq = -1;
  task.op_open = true;
  task.failed = false;
  task.errormsg.clear();
  task.resends = task.gated_at = task.news_at = 0;
  auto command = reminder(task, now());
  command.move = std::move(move);
  task.command = msg::serialize(command);
  if (told.op == "image/run") adopt_access(sql, task, told);
  task.updated_at = task.cmd_sent_at = now();
  const auto patience = patience_ms(task);
  task.deadline_at = patience == 0 ? 0 : now() + patience;
  queue_command(sql, task, task.command, now() + 60'000);
  store::update_task(sql, task);
  changed(sql, task);
  return {};
}

Result<> Engine::end_missing(store::Sql& sql, Task task) {
  const auto row = task::step(task.state, task::Event::failed);
  if (!row) return fail(ErrorCode::internal, "a task that runs and cannot fail");
  msg::TaskStatus said;
  said.seq = task.seq;
  said.errormsg =
      "node " + task.node + " has neither its VM nor the task: start it again, and it begins afresh";
  return apply(sql, task, *row, &said);
}

void Engine::stop_stray(store::Sql& sql, Task task) {
  // Not a command of the task, whose state is right; but the next one of the task must come after it.
  ++task.attempt;
  task.updated_at = now();
  store::update_task(sql, task);
  const auto stop = make_command(task, "image/stop", {}, new_command_id().str(), now(), 10 * 60'000);
  queue_command(sql, task, msg::serialize(stop), stop.deadline);
}

}  // namespace educloud::clc
