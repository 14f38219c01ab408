#include "clc/app/ticker.hpp"

#include "clc/store/accounts.hpp"
#include "common/obs/log.hpp"
#include "common/obs/metrics.hpp"

namespace educloud::clc {
namespace {

constexpr std::int64_t kSweepMs = 60'000;
constexpr std::int64_t kCountMs = 15'000;
constexpr std::int64_t kGraceMs = 60'000;  ///< after a start: the answer may be waiting in the queue
constexpr std::int64_t kJumpMs = 5'000;    ///< NTP slews less than this in a second

}  // namespace

Result<> Ticker::prepare() {
  const std::int64_t now = clock_.wall_ms();
  return store_.write([&](store::Sql& sql) -> Result<> {
    for (auto& task : store::open_tasks(sql)) {
      // Later than this only if the clock was set back meanwhile.
      const auto last = now + std::max(patience_ms(task), kGraceMs);
      if (task.deadline_at > 0) task.deadline_at = std::clamp(task.deadline_at, now + kGraceMs, last);
      task.cmd_sent_at = std::min(task.cmd_sent_at, now);
      task.news_at = std::min(task.news_at, now);
      task.gated_at = std::min(task.gated_at, now);
      task.leaves_at = std::min(task.leaves_at, now + engine_.drain_warning_ms());
      store::update_task(sql, task);
    }
    return {};
  });
}

Result<> Ticker::tick() {
  if (auto ok = heed_clock_jump(); !ok) return ok;
  if (auto ok = look_at_tasks(); !ok) return ok;
  if (auto ok = engine_.tend_boots(store_); !ok) return ok;
  if (auto ok = engine_.tend_nodes(store_); !ok) return ok;
  if (auto ok = reconciler_.run(); !ok) return ok;
  if (auto ok = count_tasks(); !ok) return ok;
  for (const auto& part : parts_) {
    if (auto ok = part(); !ok) obs::error("ticker.failed", {{"error", ok.error().message}});
  }
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
        "UPDATE tasks SET cmd_sent_at = cmd_sent_at + ?1, news_at = MAX(0, news_at + ?1), "
        "gated_at = CASE WHEN gated_at > 0 THEN gated_at + ?1 ELSE 0 END, "
        "leaves_at = CASE WHEN leaves_at > 0 THEN leaves_at + ?1 ELSE 0 END WHERE state <> 'gone'",
        {jump});
    return {};
  });
}

Result<> Ticker::look_at_tasks() {
  const std::int64_t now = clock_.wall_ms();
  auto overdue = store_.read(
      [&](store::Sql& sql) -> Result<std::vector<Task>> { return store::overdue_tasks(sql, now); });
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

Result<> Ticker::count_tasks() {
  if (clock_.boot_ms() - counted_at_boot_ms_ < kCountMs) return {};
  counted_at_boot_ms_ = clock_.boot_ms();
  struct Counts {
    std::int64_t open = 0, running = 0, waiting = 0;
  };
  const auto counts = store_.read([](store::Sql& sql) -> Result<Counts> {
    return Counts{sql.number("SELECT COUNT(*) FROM tasks WHERE state <> 'gone'"),
                  sql.number("SELECT COUNT(*) FROM tasks WHERE state = 'running'"), store::outbox_size(sql)};
  });
  if (!counts) return fail(counts.error());
  obs::metrics().gauge("educloud_clc_outbox_rows", "Messages the broker has not confirmed",
                       static_cast<double>(counts->waiting));
  obs::metrics().gauge("educloud_clc_tasks_open", "Tasks that have not ended",
                       static_cast<double>(counts->open));
  obs::metrics().gauge("educloud_clc_vms_running", "VMs that run, as last reported",
                       static_cast<double>(counts->running));
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
