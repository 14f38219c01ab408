// Nodes whose host was restarted: what becomes of the VMs that ran there.
#include "clc/app/engine.hpp"
#include "clc/domain/reboot_rules.hpp"
#include "clc/store/accounts.hpp"
#include "clc/store/store.hpp"
#include "common/obs/log.hpp"
#include "common/obs/metrics.hpp"

namespace educloud::clc {

using task::Event;

Result<> Engine::tend_boots(store::Store& store) {
  const auto boots = heartbeats_.boots();
  auto nodes =
      store.read([](store::Sql& sql) -> Result<std::vector<Node>> { return store::list_nodes(sql); });
  if (!nodes) return fail(nodes.error());
  std::map<std::pair<std::string, std::string>, std::int64_t> known;
  for (const auto& node : *nodes) known[{node.cluster, node.host}] = node.booted_at;
  for (const auto& boot : boots) {
    const auto at = known.find({boot.cluster, boot.host});
    if (at == known.end() || at->second >= boot.at) continue;
    auto done = store.write([&](store::Sql& sql) { return node_booted(sql, boot.host, boot.at); });
    if (!done) obs::error("node.reboot_failed", {{"node", boot.host}, {"error", done.error().message}});
  }
  return {};
}

Result<> Engine::node_booted(store::Sql& sql, const std::string& host, std::int64_t booted_at) {
  auto node = store::find_node(sql, host);
  if (!node || node->booted_at >= booted_at) return {};
  const bool is_first = node->booted_at == 0;
  node->booted_at = booted_at;
  store::update_node(sql, *node);
  // We had never asked it before, so nothing says that the host was restarted.
  if (is_first) return {};
  std::vector<Restart> restarts;
  int stopped = 0;
  for (auto& task : store::open_tasks_of_node(sql, host)) {
    if (task.cluster != node->cluster) continue;
    const auto instance = store::find_instance(sql, task.insid);
    const auto plan = reboot_plan(task, instance && instance->autostart && !instance->deleting);
    if (plan == RebootPlan::start) {
      restarts.push_back({task.id, task.insid.starts_with("VS"), instance->created_at});
    } else if (plan == RebootPlan::stop) {
      if (auto ok = stop_rebooted(sql, std::move(task)); !ok) return ok;
      ++stopped;
    }
  }
  order_restarts(restarts);
  for (const auto& one : restarts) {
    const std::string why = "node " + host + " was restarted: the VM starts again";
    if (start_again(sql, one.row, why)) continue;
    auto task = store::find_task_by_row(sql, one.row);
    if (auto ok = task ? stop_rebooted(sql, std::move(*task)) : Result<>{}; !ok) return ok;
  }
  const std::string what =
      std::to_string(restarts.size()) + " VMs start again, " + std::to_string(stopped) + " are stopped";
  store::audit(sql, now(), "clc", "node.rebooted", host, what);
  obs::warn("node.rebooted", {{"node", host}, {"restarted", restarts.size()}, {"stopped", stopped}});
  obs::metrics().count("educloud_clc_node_reboots_total", "Restarts of nodes' hosts that were noticed");
  return {};
}

/// It begins again on the same node, which keeps what it was promised there. False: it does not.
bool Engine::start_again(store::Sql& sql, std::int64_t row, const std::string& why) {
  const auto task = store::find_task_by_row(sql, row);
  const auto again = task ? task::step(task->state, Event::lost) : std::nullopt;
  if (!again) return false;
  Task next = *task;
  store::free_ports(sql, next.insid);
  ++next.epoch;  // whatever the node still says of the VM that is gone is of the past
  next.prompt = why;
  auto begun = apply(sql, next, *again, nullptr);
  if (!begun) obs::error("task.not_restarted", {{"tid", task->tid}, {"error", begun.error().message}});
  return begun.has_value();
}

/// Its node had not heard of us for so long that it might have begun elsewhere. It has not.
Result<> Engine::fenced(store::Sql& sql, Task task, const msg::TaskStatus& status) {
  obs::warn("task.fenced", {{"tid", task.tid}, {"node", task.node}});
  if (starts_by_itself(sql, task) &&
      start_again(sql, task.id, "node " + task.node + " had lost touch and ended the VM: it starts again"))
    return {};
  const auto row = task::step(task.state, Event::failed);
  if (!row) return fail(ErrorCode::internal, "a task that runs and cannot fail");
  return apply(sql, task, *row, &status);
}

bool Engine::starts_by_itself(store::Sql& sql, const Task& task) const {
  const auto instance = store::find_instance(sql, task.insid);
  return task.kind == TaskKind::run && instance && instance->autostart && !instance->deleting;
}

Result<> Engine::stop_rebooted(store::Sql& sql, Task task) {
  const auto row = task::step(task.state, Event::failed);
  if (!row) return fail(ErrorCode::internal, "a task that runs and cannot fail");
  ++task.epoch;
  msg::TaskStatus said;
  said.seq = task.seq;
  said.final = 1;
  said.errormsg = reboot_text(task);
  return apply(sql, task, *row, &said);
}

}  // namespace educloud::clc
