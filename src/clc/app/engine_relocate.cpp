// Nodes that are lost: what becomes of their tasks.
#include "clc/app/engine.hpp"
#include "clc/domain/lease_rules.hpp"
#include "clc/store/accounts.hpp"
#include "common/obs/log.hpp"
#include "common/obs/metrics.hpp"

namespace educloud::clc {

using task::Event;

namespace {

/// A node that was away for longer hears it from the reconciliation.
constexpr std::int64_t kFarewellMs = 7 * 24 * 3'600'000LL;
constexpr std::string_view kWho = "clc";

}  // namespace

Result<> Engine::lose_node(store::Sql& sql, const std::string& host) {
  auto node = store::find_node(sql, host);
  if (!node || node->lost_at > 0) return {};
  node->lost_at = now();
  ++node->lease_epoch;
  store::update_node(sql, *node);
  store::audit(sql, now(), kWho, "node.lost", host, "lease epoch " + std::to_string(node->lease_epoch));
  obs::warn("node.lost", {{"node", host}, {"cluster", node->cluster}, {"lease_epoch", node->lease_epoch}});
  obs::metrics().count("educloud_clc_nodes_lost_total", "Nodes declared lost");
  return {};
}

Result<> Engine::node_back(store::Sql& sql, const std::string& host) {
  auto node = store::find_node(sql, host);
  if (!node || node->lost_at == 0) return {};
  obs::info("node.back", {{"node", host}, {"lost_for_s", (now() - node->lost_at) / 1000}});
  node->lost_at = 0;
  store::update_node(sql, *node);
  store::audit(sql, now(), kWho, "node.back", host);
  for (auto& task : store::open_tasks_of_node(sql, host)) {
    if (!task.failed || !task.errormsg.starts_with(lost_text(host))) continue;
    if (task.state.state == task::State::stopped && starts_by_itself(sql, task)) {
      // It could not start elsewhere; its user need not be there for it to start now.
      const auto begun = user_event(sql, task, Event::start);
      if (begun) continue;
      obs::warn("task.not_restarted", {{"tid", task.tid}, {"error", begun.error().message}});
    }
    // What had failed before, with nothing under way, does not go on by itself.
    const bool waits = task::is_transient(task.state) && !task.op_open;
    task.failed = waits;
    task.errormsg = waits ? "node " + host + " was lost and is back: start again or cancel" : "";
    task.updated_at = now();
    store::update_task(sql, task);
    changed(sql, task);
  }
  return {};
}

Result<bool> Engine::relocate(store::Sql& sql, Task task, bool final_try) {
  const auto plan = lost_plan(task);
  switch (plan) {
    case LostPlan::nothing: return true;
    case LostPlan::wait:
      say_lost(sql, task, "it goes on when the node comes back; to give it up, cancel --force");
      return true;
    case LostPlan::stop: return leave_node(sql, std::move(task), Event::stopped);
    case LostPlan::end: return leave_node(sql, std::move(task), Event::deleted);
    case LostPlan::move: break;
  }
  const Task old = task;
  if (auto placed = place(sql, task); !placed) {
    task = old;
    const std::string why = "and it cannot start elsewhere: " + placed.error().message;
    if (!final_try) {
      say_lost(sql, task, why);
      return false;
    }
    return leave_node(sql, std::move(task), Event::failed, why);
  }
  say_farewell(sql, old, kFarewellMs);
  store::free_ports(sql, task.insid);
  ++task.epoch;
  task.gated_at = 0;
  const auto row = task::step(task.state, Event::lost);
  if (!row)
    return fail(ErrorCode::internal,
                "a desktop that cannot begin again from " + std::string(to_string(task.state.state)));
  if (auto ok = apply(sql, task, *row, nullptr); !ok) return fail(ok.error());
  store::audit(sql, now(), kWho, "vm.relocate", task.insid, old.node + " to " + task.node);
  obs::warn("task.relocated", {{"tid", task.tid}, {"from", old.node}, {"to", task.node}});
  obs::metrics().count("educloud_clc_tasks_relocated_total", "Desktops begun again on another node");
  return true;
}

void Engine::say_lost(store::Sql& sql, Task& task, const std::string& text) {
  task.failed = true;
  task.errormsg = (lost_text(task.node) + "; " + text).substr(0, 2000);
  task.updated_at = now();
  store::update_task(sql, task);
  changed(sql, task);
}

Result<bool> Engine::leave_node(store::Sql& sql, Task task, Event event, const std::string& why) {
  const auto row = task::step(task.state, event);
  if (!row)
    return fail(ErrorCode::internal,
                "no way to leave a node from " + std::string(to_string(task.state.state)));
  say_farewell(sql, task, kFarewellMs);
  // Whatever its node still says of it is of the past.
  ++task.epoch;
  // Nor does the node come to have it that it was on its way to.
  if (task.op_open && task.op == "instance/migrate") turn_away(sql, task.command);
  task.op_open = false;
  store::free_ports(sql, task.insid);
  msg::TaskStatus said;
  said.seq = task.seq;
  said.errormsg = lost_text(task.node) + "; " + why;
  const bool leaves_disk = event == Event::deleted && has_disk(sql, task) && disk_goes(sql, task);
  if (auto ok = apply(sql, task, *row, event == Event::failed ? &said : nullptr); !ok)
    return fail(ok.error());
  if (leaves_disk) remove_left_disk(sql, task);
  obs::warn("task.left_node", {{"tid", task.tid}, {"node", task.node}, {"event", to_string(event)}});
  return true;
}

}  // namespace educloud::clc
