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

}  // namespace

struct OutboxRelay::Impl : std::enable_shared_from_this<OutboxRelay::Impl> {
  Impl(store::Store& s, bus::Bus& b, const Clock& c) : store(s), bus(b), clock(c) {}

  store::Store& store;
  bus::Bus& bus;
  const Clock& clock;

  enum class Stage { in_flight, put_off, confirmed };
  struct Mark {
    Stage stage = Stage::in_flight;
    std::int64_t retry_at_boot_ms = 0;
    int failures = 0;
  };
  std::mutex mutex;
  std::condition_variable changed;
  std::map<std::int64_t, Mark> rows;    ///< those published or tried, until they are deleted
  std::vector<std::int64_t> confirmed;  ///< to be deleted with the next write
  std::int64_t last_id = 0;             ///< the newest row in hand
  int in_flight = 0;
  bool removing = false;  ///< a write that deletes them is on its way
  bool work = true, more = false, stopping = false;
  std::thread thread;

  void loop(OutboxRelay& relay);
  std::vector<store::OutboxRow> due_rows();
  enum class Sent { published, expired, refused };  ///< refused: the bus takes no more now
  Sent send(const store::OutboxRow& row);
  bool take(std::int64_t id);
  void outcome(std::int64_t id, bus::Outcome what, const std::string& key);
  void put_off(std::int64_t id, bus::Outcome what, const std::string& key);
  void remove_confirmed();
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
    for (auto& [id, mark] : impl_->rows) mark.retry_at_boot_ms = 0;
  }
  wake();
}

void OutboxRelay::Impl::outcome(std::int64_t id, bus::Outcome what, const std::string& key) {
  if (what != bus::Outcome::confirmed) return put_off(id, what, key);
  bool first = false;
  {
    const std::scoped_lock guard(mutex);
    // Kept in `rows` until the row itself is gone, else a later round would publish it again.
    rows[id].stage = Stage::confirmed;
    --in_flight;
    first = !std::exchange(removing, true);
    confirmed.push_back(id);
    work = work || more;
    if (work) changed.notify_one();
  }
  if (first) remove_confirmed();
}

// Deleting is not urgent: a crash before it repeats a command, which its receiver knows by its id.
void OutboxRelay::Impl::remove_confirmed() {
  auto gone = std::make_shared<std::vector<std::int64_t>>();
  const bool posted = store.post_lazily(
      [self = shared_from_this(), gone](store::Sql& sql) -> Result<> {
        {
          const std::scoped_lock guard(self->mutex);
          gone->swap(self->confirmed);
          self->removing = false;
        }
        for (const auto id : *gone) store::remove_outbox(sql, id);
        return {};
      },
      [self = shared_from_this(), gone](const Result<>& done) {
        const std::scoped_lock guard(self->mutex);
        if (done) {
          for (const auto id : *gone) self->rows.erase(id);
          return;
        }
        // The disk is full, say: with the next one that is confirmed.
        self->confirmed.insert(self->confirmed.end(), gone->begin(), gone->end());
      });
  if (posted) return;
  const std::scoped_lock guard(mutex);
  removing = false;
}

void OutboxRelay::Impl::put_off(std::int64_t id, bus::Outcome what, const std::string& key) {
  const std::scoped_lock guard(mutex);
  auto& mark = rows[id];
  mark.stage = Stage::put_off;
  --in_flight;
  const auto wait = std::min(kLongestRetryMs, kFirstRetryMs << std::min(mark.failures, 6));
  ++mark.failures;
  mark.retry_at_boot_ms = clock.boot_ms() + wait;
  if (what == bus::Outcome::returned) {
    // The queue is missing: an operator's to mend; everything else goes on meanwhile.
    obs::error("outbox.unroutable", {{"key", key}, {"row", id}, {"retry_ms", wait}});
    obs::metrics().count("educloud_clc_outbox_unroutable_total", "Messages no queue is bound for");
  } else if (bus.is_ready()) {
    // The broker is there and will not have it: the queue is full, or it does not get round to it.
    obs::error("outbox.refused", {{"key", key}, {"row", id}, {"retry_ms", wait}});
    obs::metrics().count("educloud_clc_outbox_refused_total", "Messages that the broker did not take over");
  }
  changed.notify_one();
}

bool OutboxRelay::Impl::take(std::int64_t id) {
  const std::scoped_lock guard(mutex);
  if (in_flight >= kWindow) return false;
  rows[id].stage = Stage::in_flight;
  last_id = std::max(last_id, id);
  ++in_flight;
  return true;
}

/// What may be published now: rows put off whose time has come, then new ones, oldest first.
std::vector<store::OutboxRow> OutboxRelay::Impl::due_rows() {
  std::vector<std::int64_t> again;
  std::int64_t after = 0;
  std::size_t room = 0;
  {
    const std::scoped_lock guard(mutex);
    const std::int64_t now = clock.boot_ms();
    room = static_cast<std::size_t>(std::max(0, kWindow - in_flight));
    for (const auto& [id, mark] : rows) {
      if (again.size() == room) break;
      if (mark.stage == Stage::put_off && mark.retry_at_boot_ms <= now) again.push_back(id);
    }
    room -= again.size();
    after = last_id;
    more = room == 0;
  }
  using Rows = std::vector<store::OutboxRow>;
  auto found = store.read([&](store::Sql& sql) -> Result<Rows> {
    Rows out;
    for (const auto id : again) {
      for (auto& row : store::outbox_after(sql, id - 1, 1)) {
        if (row.id == id) out.push_back(std::move(row));
      }
    }
    auto fresh = room == 0 ? Rows{} : store::outbox_after(sql, after, static_cast<int>(room));
    std::move(fresh.begin(), fresh.end(), std::back_inserter(out));
    return out;
  });
  if (!found) {
    obs::error("outbox.read_failed", {{"error", found.error().message}});
    return {};
  }
  const std::scoped_lock guard(mutex);
  more = more || found->size() == again.size() + room;
  for (const auto id : again) {
    const bool there =
        std::any_of(found->begin(), found->end(), [&](const auto& row) { return row.id == id; });
    if (!there) rows.erase(id);
  }
  return std::move(*found);
}

OutboxRelay::Impl::Sent OutboxRelay::Impl::send(const store::OutboxRow& row) {
  if (!take(row.id)) return Sent::refused;
  const std::int64_t left_ms = row.deadline_at == 0 ? 0 : row.deadline_at - clock.wall_ms();
  if (row.deadline_at != 0 && left_ms <= 0) {
    // Nobody would begin it any more; its task has its own deadline.
    outcome(row.id, bus::Outcome::confirmed, row.routing_key);
    return Sent::expired;
  }
  bus::Outgoing message{row.exchange, row.routing_key, row.body, row.msgid,
                        std::chrono::milliseconds{left_ms}};
  auto queued =
      bus.publish(std::move(message), [shared = shared_from_this(), id = row.id, key = row.routing_key](
                                          bus::Outcome what) { shared->outcome(id, what, key); });
  if (!queued) outcome(row.id, bus::Outcome::failed, row.routing_key);
  return queued ? Sent::published : Sent::refused;
}

int OutboxRelay::pump() {
  int sent = 0;
  for (const auto& row : impl_->due_rows()) {
    const auto what = impl_->send(row);
    if (what == Impl::Sent::refused) break;
    sent += what == Impl::Sent::published ? 1 : 0;
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
      const bool nothing = !work && std::none_of(rows.begin(), rows.end(), [](const auto& one) {
        return one.second.stage == Stage::put_off;
      });
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
