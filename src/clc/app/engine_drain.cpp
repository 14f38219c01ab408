// Nodes that are being drained: what becomes of their VMs.
#include <ctime>

#include "clc/app/engine.hpp"
#include "clc/store/accounts.hpp"
#include "clc/store/placements.hpp"
#include "common/obs/log.hpp"

namespace educloud::clc {

using task::Event;

namespace {

constexpr std::int64_t kFarewellMs = 3'600'000;

std::string drain_text(const std::string& node) {
  return "node " + node + " is being drained: start it again and it runs elsewhere";
}

/// "HH:MM:SS" of a unix time in milliseconds, UTC.
std::string time_of_day(std::int64_t at_ms) {
  const std::time_t seconds = at_ms / 1000;
  std::tm utc{};
  char text[16] = "";
  if (::gmtime_r(&seconds, &utc) != nullptr) (void)std::strftime(text, sizeof text, "%H:%M:%S", &utc);
  return text;
}

}  // namespace

/// True if `task` is a desktop on a node that is being drained.
bool Engine::leaves(store::Sql& sql, const Task& task) const {
  if (task.kind != TaskKind::run) return false;
  const auto node = store::find_node(sql, task.node);
  return node && node->state == NodeState::drained;
}

Result<> Engine::drain(store::Sql& sql) {
  for (const auto id : store::to_drain(sql, now())) {
    auto task = store::find_task_by_row(sql, id);
    if (!task) continue;
    const std::string tid = task->tid, node = task->node;
    const bool runs = task->state.state == task::State::running || task->state.state == task::State::paused;
    // A snapshot, or what makes this node the keeper of a VM that has just come: its turn is in a second.
    if (runs && task->op_open) continue;
    Result<> done;
    if (task->state.phase == task::Phase::preparing) {
      done = begin_elsewhere(sql, *task);
      // Where no other node could take it, it has failed and stays to tell.
      if (done && task->failed) {
        store::update_task(sql, *task);
        changed(sql, *task);
      }
    } else if (!is_idle(*task) && move_off(sql, *task)) {
      continue;
    } else if (runs && warn(sql, *task)) {
      continue;
    } else {
      task->prompt = drain_text(node);
      if (task->leaves_at == 0) task->leaves_at = now();
      auto stopped = user_event(sql, std::move(*task), Event::stop);
      if (!stopped) done = fail(stopped.error());
    }
    // One that cannot be moved must not hold up the others.
    if (!done) obs::error("task.not_drained", {{"tid", tid}, {"error", done.error().message}});
    if (done) obs::info("task.drained", {{"tid", tid}, {"node", node}});
  }
  return {};
}

/// A desktop that nobody seems to use: moving it is not worth the while.
bool Engine::is_idle(const Task& task) const {
  if (options_.drain_idle_ms == 0 || task.insid.starts_with("VS")) return false;
  return heartbeats_.idle_ms(task.node, task.cluster, task.insid) >= options_.drain_idle_ms;
}

/// Whoever uses the VM has time to save his work; false if that time is over.
bool Engine::warn(store::Sql& sql, Task& task) {
  if (options_.drain_warning_ms == 0 || task.leaves_at > 0) return false;
  task.leaves_at = now() + options_.drain_warning_ms;
  task.updated_at = now();
  store::update_task(sql, task);
  changed(sql, task);
  obs::info("task.drain_warned",
            {{"tid", task.tid}, {"node", task.node}, {"stops_in_s", options_.drain_warning_ms / 1000}});
  return true;
}

/// Told instead of what its node says of a VM that runs, and gone with leaves_at.
void Engine::show_warning(TaskView& view) const {
  auto& task = view.task;
  const bool runs = task.state.state == task::State::running || task.state.state == task::State::paused;
  const bool goes = task.op_open && (task.op == "image/stop" || task.op == "instance/migrate");
  if (task.leaves_at == 0 || !runs || goes) return;
  task.prompt = "node " + task.node + " is drained: this VM is stopped at " + time_of_day(task.leaves_at) +
                " UTC, save your work";
}

void Engine::end_drain(store::Sql& sql, const std::string& host) {
  for (auto& task : store::open_tasks_of_node(sql, host)) {
    if (task.leaves_at == 0 && task.prompt != kStays) continue;
    task.leaves_at = 0;
    if (task.prompt == kStays) task.prompt.clear();
    task.updated_at = now();
    store::update_task(sql, task);
    changed(sql, task);
  }
}

/// A desktop that does not run yet begins again on another node; if none can take it, it fails (not stored).
Result<> Engine::begin_elsewhere(store::Sql& sql, Task& task) {
  const Task old = task;
  if (auto placed = place(sql, task); !placed) {
    task = old;
    return fail_here(task, drain_text(old.node) + "; now " + placed.error().message);
  }
  say_farewell(sql, old, kFarewellMs);
  store::free_ports(sql, task.insid);
  ++task.epoch;
  task.gated_at = 0;
  const auto row = task::step(task.state, Event::lost);
  if (!row) return fail(ErrorCode::internal, "a desktop that cannot begin again");
  return apply(sql, task, *row, nullptr);
}

/// Whoever finds his desktop stopped is told why.
void Engine::explain_stop(store::Sql& sql, Task& task) const {
  if (leaves(sql, task)) task.prompt = drain_text(task.node);
}

}  // namespace educloud::clc
