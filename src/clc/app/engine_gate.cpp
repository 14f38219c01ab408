#include <algorithm>

#include "clc/app/engine.hpp"
#include "clc/store/placements.hpp"
#include "clc/store/store.hpp"
#include "common/obs/log.hpp"
#include "common/obs/metrics.hpp"

namespace educloud::clc {

using task::Event;

namespace {

int slots_taken(store::Sql& sql, const std::string& node, const BootGate& gate, std::int64_t now_ms) {
  int taken = 0;
  for (const auto queued_at : store::boots_on(sql, node)) taken += holds_slot(gate, queued_at, now_ms);
  return taken;
}

}  // namespace

/// The node has what `task` needs to boot: now, or when its turn comes.
Result<> Engine::run_or_wait(store::Sql& sql, Task& task) {
  if (leaves(sql, task)) return begin_elsewhere(sql, task);
  if (auto ok = open_gate(sql, task.node); !ok) return ok;
  const bool others_wait = !store::waiting_at_gate(sql, task.node).empty();
  const AtGate at{slots_taken(sql, task.node, options_.gate, now()), 1};
  if (!others_wait && to_open(options_.gate, at) == 1) return run_now(sql, task);
  task.gated_at = now();
  task.deadline_at = now() + patience_ms(task);
  obs::info("task.gated", {{"tid", task.tid}, {"node", task.node}, {"booting", at.booting}});
  obs::metrics().count("educloud_clc_tasks_gated_total", "Boots that had to wait for their node's gate");
  return {};
}

Result<> Engine::run_now(store::Sql& sql, Task& task) {
  auto sent = send(sql, task, "image/run");
  // No port is free, say: that is the user's to see, not a reason to lose the node's message.
  return sent ? sent : fail_here(task, sent.error().message);
}

Result<> Engine::fail_here(Task& task, const std::string& why) {
  const auto failed = task::step(task.state, Event::failed);
  if (!failed) return fail(ErrorCode::internal, "no way to fail from here: " + why);
  msg::TaskStatus refusal;
  refusal.seq = task.seq;
  refusal.errormsg = why;
  task = after_event(std::move(task), *failed, &refusal, now());
  return {};
}

/// Those that have waited longest boot, as many as there are slots.
Result<> Engine::open_gate(store::Sql& sql, const std::string& node) {
  if (node.empty()) return {};
  const auto waiting = store::waiting_at_gate(sql, node);
  if (waiting.empty()) return {};
  const auto registered = store::find_node(sql, node);
  if (registered && registered->lost_at > 0) return {};  // its desktops go elsewhere
  int slots = to_open(options_.gate,
                      {slots_taken(sql, node, options_.gate, now()), static_cast<int>(waiting.size())});
  for (const auto id : waiting) {
    if (slots == 0) break;
    auto task = store::find_task_by_row(sql, id);
    if (!task || leaves(sql, *task)) continue;
    task->gated_at = 0;
    task->updated_at = now();
    if (auto ok = run_now(sql, *task); !ok) return ok;
    // One that could not be sent off, for want of a port, takes no slot.
    if (!task->failed) --slots;
    store::update_task(sql, *task);
    changed(sql, *task);
  }
  return {};
}

Result<> Engine::tend_nodes(store::Store& store) {
  struct Work {
    std::vector<std::string> gated;
    std::vector<std::int64_t> leaving;
  };
  auto work = store.read([at = now()](store::Sql& sql) -> Result<Work> {
    return Work{store::gated_nodes(sql), store::to_drain(sql, at)};
  });
  if (!work) return fail(work.error());
  for (const auto& node : work->gated) {
    auto done = store.write([&](store::Sql& sql) { return open_gate(sql, node); });
    if (!done) obs::error("gate.failed", {{"node", node}, {"error", done.error().message}});
  }
  if (work->leaving.empty()) return {};
  return store.write([&](store::Sql& sql) { return drain(sql); });
}

void Engine::show_queue(store::Sql& sql, TaskView& view) const {
  const auto place = store::queue_place(sql, view.task);
  view.queue_place = place.place;
  view.queue_length = place.length;
  view.queue_reason = "place " + std::to_string(place.place) + " of " + std::to_string(place.length) +
                      " in the boot queue of " + view.task.node + ": at most " +
                      std::to_string(options_.gate.max_parallel) + " boot there at once";
}

void Engine::measure(const Task& task, Event event, const msg::TaskStatus& status) {
  const auto blend = [](std::int64_t old, std::int64_t fresh) {
    return old == 0 ? fresh : (old * 3 + fresh) / 4;
  };
  const std::scoped_lock guard(pace_mutex_);
  if (event == Event::downloading && status.bytes_per_s > 0 && !is_walrus_task(task.kind)) {
    auto& rate = pace_.fetch_bytes_per_s[task.cluster];
    rate = blend(rate, status.bytes_per_s);
  }
  if (event == Event::running && task.op == "image/run" && task.state.state != task::State::running &&
      task.resends == 0 && task.cmd_sent_at > 0) {
    const std::int64_t took_ms = std::clamp<std::int64_t>(now() - task.cmd_sent_at, 1, 3'600'000);
    pace_.boot_ms = blend(pace_.boot_ms.value_or(0), took_ms);
  }
}

Pace Engine::pace() const {
  const std::scoped_lock guard(pace_mutex_);
  return pace_;
}

}  // namespace educloud::clc
