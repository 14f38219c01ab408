#include "clc/app/outbox_relay.hpp"

#include <condition_variable>
#include <map>

#include "clc/store/tasks.hpp"
#include "common/obs/log.hpp"
#include "common/obs/metrics.hpp"

namespace educloud::clc {
namespace {

constexpr std::int64_t kFirstRetryMs = 500;
constexpr std::int64_t kLongestRetryMs = 15'000;

/// Rows looked at per round at most.
constexpr std::size_t kLook = 4096;

}  // namespace

struct OutboxRelay::Impl : std::enable_shared_from_this<OutboxRelay::Impl> {
  Impl(store::Store& s, bus::Bus& b, const Clock& c) : store(s), bus(b), clock(c) {}

  store::Store& store;
  bus::Bus& bus;
  const Clock& clock;

  struct Row {
    bool in_flight = false;
    std::int64_t retry_at_boot_ms = 0;
    int failures = 0;
  };
  std::mutex mutex;
  std::condition_variable changed;
  std::map<std::int64_t, Row> rows;  ///< in flight or put off
  int in_flight = 0;
  bool work = true, stopping = false;
  std::thread thread;

  void outcome(std::int64_t id, bus::Outcome what, const std::string& key);
  void loop(OutboxRelay& relay);
  bool take(const store::OutboxRow& row, std::int64_t boot_ms);
  void forget(std::int64_t id) {
    const std::scoped_lock guard(mutex);
    if (const auto at = rows.find(id); at != rows.end()) {
      if (at->second.in_flight) --in_flight;
      rows.erase(at);
    }
  }
};

OutboxRelay::OutboxRelay(store::Store& store, bus::Bus& bus, const Clock& clock)
    : impl_(std::make_shared<Impl>(store, bus, clock)) {}
OutboxRelay::~OutboxRelay() {
  stop();
}

void OutboxRelay::wake() {
  {
    const std::scoped_lock guard(impl_->mutex);
    impl_->work = true;
  }
  impl_->changed.notify_one();
}

void OutboxRelay::reconnected() {
  {
    const std::scoped_lock guard(impl_->mutex);
    for (auto& [id, row] : impl_->rows) row.retry_at_boot_ms = 0;
  }
  wake();
}

void OutboxRelay::Impl::outcome(std::int64_t id, bus::Outcome what, const std::string& key) {
  if (what == bus::Outcome::confirmed) {
    // Still in `rows` until the row itself is gone, else the next round would publish it again.
    const bool posted = store.post(
        [id](store::Sql& sql) -> Result<> {
          store::remove_outbox(sql, id);
          return {};
        },
        [self = shared_from_this(), id](const Result<>&) {
          self->forget(id);
          const std::scoped_lock guard(self->mutex);
          self->work = true;
          self->changed.notify_one();
        });
    if (posted) return;
  }
  const std::scoped_lock guard(mutex);
  auto& row = rows[id];
  if (row.in_flight) --in_flight;
  row.in_flight = false;
  const auto wait = std::min(kLongestRetryMs, kFirstRetryMs << std::min(row.failures, 6));
  ++row.failures;
  row.retry_at_boot_ms = clock.boot_ms() + wait;
  if (what == bus::Outcome::returned) {
    // The queue is missing: an operator's to mend; everything else goes on meanwhile.
    obs::error("outbox.unroutable", {{"key", key}, {"row", id}, {"retry_ms", wait}});
    obs::metrics().count("educloud_clc_outbox_unroutable_total", "Messages no queue is bound for");
  }
  changed.notify_one();
}

bool OutboxRelay::Impl::take(const store::OutboxRow& row, std::int64_t boot_ms) {
  const std::scoped_lock guard(mutex);
  if (in_flight >= kWindow) return false;
  auto& mark = rows[row.id];
  if (mark.in_flight || mark.retry_at_boot_ms > boot_ms) return false;
  mark.in_flight = true;
  ++in_flight;
  return true;
}

int OutboxRelay::pump() {
  auto& impl = *impl_;
  std::size_t look = 0;
  {
    // Rows in flight or put off are among the oldest; past them one window's worth is enough.
    const std::scoped_lock guard(impl.mutex);
    look = std::min(kLook, impl.rows.size() + kWindow);
  }
  const auto due = impl.store.read([look](store::Sql& sql) -> Result<std::vector<store::OutboxRow>> {
    return store::outbox_after(sql, 0, static_cast<int>(look));
  });
  if (!due) {
    obs::error("outbox.read_failed", {{"error", due.error().message}});
    return 0;
  }
  int sent = 0;
  bool refused = false;
  for (const auto& row : *due) {
    const std::int64_t left_ms = row.deadline_at == 0 ? 0 : row.deadline_at - impl.clock.wall_ms();
    const bool expired = row.deadline_at != 0 && left_ms <= 0;
    if (refused && !expired) continue;
    if (!impl.take(row, impl.clock.boot_ms())) continue;
    if (expired) {
      // Nobody would begin it any more; its task has its own deadline.
      impl.outcome(row.id, bus::Outcome::confirmed, row.routing_key);
      continue;
    }
    bus::Outgoing message{row.exchange, row.routing_key, row.body, row.msgid,
                          std::chrono::milliseconds{left_ms}};
    auto queued =
        impl.bus.publish(std::move(message), [shared = impl_, id = row.id, key = row.routing_key](
                                                 bus::Outcome what) { shared->outcome(id, what, key); });
    if (!queued) {
      impl.outcome(row.id, bus::Outcome::failed, row.routing_key);
      refused = true;
      continue;
    }
    ++sent;
  }
  return sent;
}

void OutboxRelay::Impl::loop(OutboxRelay& relay) {
  while (true) {
    {
      std::unique_lock guard(mutex);
      // The time limit is for rows put off.
      changed.wait_for(guard, std::chrono::milliseconds{500}, [&] { return work || stopping; });
      if (stopping) return;
      const bool nothing = !work && rows.empty();
      work = false;
      if (nothing) continue;
    }
    relay.pump();
  }
}

void OutboxRelay::start() {
  impl_->thread = std::thread([this] { impl_->loop(*this); });
}

void OutboxRelay::stop() {
  {
    const std::scoped_lock guard(impl_->mutex);
    impl_->stopping = true;
  }
  impl_->changed.notify_all();
  if (impl_->thread.joinable()) impl_->thread.join();
}

}  // namespace educloud::clc
