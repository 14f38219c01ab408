#include "clc/app/ticker.hpp"

#include "clc/store/accounts.hpp"
#include "common/obs/log.hpp"
#include "common/obs/metrics.hpp"

namespace educloud::clc {
namespace {

constexpr std::int64_t kSweepMs = 60'000;
constexpr std::int64_t kLostLookMs = 15'000;
constexpr std::int64_t kJumpMs = 5'000;  ///< NTP slews less than this in a second

}  // namespace

Result<> Ticker::prepare() {
  return store_.write([&](store::Sql& sql) -> Result<> {
    sql.run("UPDATE tasks SET deadline_at = MAX(deadline_at, ?) WHERE state <> 'gone' AND deadline_at > 0",
            {clock_.wall_ms() + 60'000});
    return {};
  });
}

Result<> Ticker::tick() {
  if (auto ok = heed_clock_jump(); !ok) return ok;
  if (auto ok = look_at_tasks(); !ok) return ok;
  if (auto ok = look_for_lost_vms(); !ok) return ok;
  if (clock_.boot_ms() - swept_at_boot_ms_ < kSweepMs) return {};
  swept_at_boot_ms_ = clock_.boot_ms();
  return store_.write([&](store::Sql& sql) -> Result<> {
    store::remove_expired(sql, clock_.wall_ms());
    return {};
  });
}

// Deadlines are wall time, since they must survive a restart of the host; so they move with the wall.
Result<> Ticker::heed_clock_jump() {
  const std::int64_t offset = clock_.wall_ms() - clock_.boot_ms();
  const std::int64_t jump = has_offset_ ? offset - offset_ms_ : 0;
  offset_ms_ = offset;
  has_offset_ = true;
  if (std::abs(jump) < kJumpMs) return {};
  obs::warn("clock.jumped", {{"by_ms", jump}});
  return store_.write([&](store::Sql& sql) -> Result<> {
    sql.run("UPDATE tasks SET deadline_at = deadline_at + ?1 WHERE state <> 'gone' AND deadline_at > 0",
            {jump});
    sql.run(
        "UPDATE tasks SET cmd_sent_at = cmd_sent_at + ?1, news_at = MAX(0, news_at + ?1) WHERE state <> "
        "'gone'",
        {jump});
    return {};
  });
}

Result<> Ticker::look_at_tasks() {
  const std::int64_t now = clock_.wall_ms();
  auto overdue = store_.read([&](store::Sql& sql) -> Result<std::vector<Task>> {
    return store::overdue_tasks(sql, now - kResendMs, now);
  });
  if (!overdue) return fail(overdue.error());
  for (const auto& seen : *overdue) {
    auto done = store_.write([&](store::Sql& sql) -> Result<> {
      const auto task = store::find_task_by_row(sql, seen.id);
      if (!task || task->updated_at != seen.updated_at || task->cmdid != seen.cmdid)
        return {};  // moved meanwhile
      if (task->deadline_at > 0 && task->deadline_at <= now) return engine_.timed_out(sql, *task);
      engine_.resend(sql, *task);
      return {};
    });
    // One task that cannot be moved must not hold up the others.
    if (!done) obs::error("ticker.task_failed", {{"tid", seen.tid}, {"error", done.error().message}});
  }
  return {};
}

// A VM that should run and of which its node's heartbeat knows nothing: its last word was lost (a broker
// whose disk is gone). The command again, with the same id, makes the node repeat what it knows.
Result<> Ticker::look_for_lost_vms() {
  if (clock_.boot_ms() - lost_looked_at_boot_ms_ < kLostLookMs) return {};
  lost_looked_at_boot_ms_ = clock_.boot_ms();
  const std::int64_t now = clock_.wall_ms();
  auto open =
      store_.read([](store::Sql& sql) -> Result<std::vector<Task>> { return store::open_tasks(sql); });
  if (!open) return fail(open.error());
  int running = 0;
  for (const auto& seen : *open) {
    const bool runs = seen.state == task::TaskState{task::Phase::editing, task::State::running};
    running += runs ? 1 : 0;
    if (!runs || seen.op_open || now - seen.updated_at < kResendMs || now - seen.cmd_sent_at < kResendMs)
      continue;
    const auto beat = heartbeats_.node(seen.node, seen.cluster);
    if (!beat || beat->age_ms > kLostLookMs) continue;
    const auto& vms = beat->status.vm_data;
    if (std::any_of(vms.begin(), vms.end(), [&](const auto& vm) { return vm.insid == seen.insid; })) continue;
    obs::warn("vm.unaccounted", {{"tid", seen.tid}, {"node", seen.node}});
    auto done = store_.write([&](store::Sql& sql) -> Result<> {
      const auto task = store::find_task_by_row(sql, seen.id);
      if (task && task->updated_at == seen.updated_at) engine_.resend(sql, *task);
      return {};
    });
    if (!done) return fail(done.error());
  }
  const auto waiting =
      store_.read([](store::Sql& sql) -> Result<std::int64_t> { return store::outbox_size(sql); });
  if (!waiting) return fail(waiting.error());
  obs::metrics().gauge("educloud_clc_outbox_rows", "Messages the broker has not confirmed",
                       static_cast<double>(*waiting));
  obs::metrics().gauge("educloud_clc_tasks_open", "Tasks that have not ended",
                       static_cast<double>(open->size()));
  obs::metrics().gauge("educloud_clc_vms_running", "VMs that run, as last reported", running);
  return {};
}

void Ticker::start() {
  thread_ = std::thread([this] {
    std::unique_lock guard(mutex_);
    while (!stopping_) {
      guard.unlock();
      if (auto ok = tick(); !ok) obs::error("ticker.failed", {{"error", ok.error().message}});
      guard.lock();
      changed_.wait_for(guard, std::chrono::seconds{1}, [&] { return stopping_; });
    }
  });
}

void Ticker::stop() {
  {
    const std::scoped_lock guard(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

}  // namespace educloud::clc
