#include "common/inbox/inbox.hpp"

#include <condition_variable>

#include "common/base/ids.hpp"
#include "common/base/rate_meter.hpp"
#include "common/inbox/store.hpp"
#include "common/obs/log.hpp"

namespace educloud::inbox {
namespace {

constexpr std::size_t kTextBytes = 4000;  ///< of a prompt or an error message on the wire
constexpr std::size_t kReceiptBytes = 1024;
constexpr std::chrono::milliseconds kTickInterval{200};
constexpr std::int64_t kRetentionIntervalMs = 60'000;

/// Cut at `limit` bytes without splitting a UTF-8 sequence.
std::string cut(std::string text, std::size_t limit) {
  if (text.size() <= limit) return text;
  std::size_t end = limit;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
  text.resize(end);
  return text;
}

/// After these nothing of the task is left here that somebody could still ask about.
bool is_over(const std::optional<msg::TaskStatus>& status) {
  return status && status->final == 1 &&
         (status->event == "deleted" || status->event == "submitted" || status->event == "failed");
}

/// The node forgot the task: a later run under the same tid may count its epochs from anywhere (clc's
/// database was restored from a backup, say). What was only held up on its way is older by its time too.
bool is_deleted(const std::optional<msg::TaskStatus>& status) {
  return status && status->final == 1 && status->event == "deleted";
}

}  // namespace

/// What is known of one task; the same as its row, decoded.
struct Live {
  msg::Command command;
  std::optional<msg::TaskStatus> status;
  bool finished = false;
  bool sent = true;
  std::int64_t seq = 0;
  std::int64_t updated_ms = 0;
  std::int64_t tried_at = 0;       ///< boot_ms of the last attempt to publish `status`
  std::int64_t in_flight_seq = 0;  ///< the broker has not answered for this one yet; 0: none
  std::optional<Report> held_back;
  RateMeter rate;
  task::Event measured = task::Event::failed;  ///< what `rate` is of
};

struct Inbox::Impl : std::enable_shared_from_this<Inbox::Impl> {
  Impl(Options o, bus::Bus& b, const Clock& c) : options(std::move(o)), bus(b), clock(c) {}

  const Options options;
  bus::Bus& bus;
  const Clock& clock;
  mutable std::mutex mutex;
  std::unique_ptr<Store> store;       // under mutex
  std::map<std::string, Live> tasks;  // under mutex, by tid
  std::int64_t retention_at = 0;      // under mutex, boot_ms
  bool closed = false;                // under mutex: the Inbox is gone, only late callbacks are left
  std::jthread ticker;
  std::condition_variable_any wake;

  Result<> load();
  Result<Accepted> accept(const msg::Command& command);
  Result<> report(const Report& report);
  Result<bus::Outgoing> store_report(Live& live, const Report& report);
  void publish(const std::string& tid, std::int64_t seq, bus::Outgoing message);
  void on_outcome(const std::string& tid, std::int64_t seq, bus::Outcome outcome);
  void send_unconfirmed(std::int64_t quiet_ms);
  void send_held_back();
  void retain();
};

Result<> Inbox::Impl::load() {
  auto rows = store->load();
  if (!rows) return fail(rows.error());
  for (auto& row : *rows) {
    auto command = msg::parse<msg::Command>(row.command);
    if (!command) {
      // Written by another version: clc sends the command again, so dropping the row loses nothing.
      obs::error("inbox.row_unreadable", {{"tid", row.tid}, {"reason", command.error().message}});
      continue;
    }
    Live live;
    live.command = std::move(*command);
    live.finished = row.finished;
    live.sent = row.sent;
    live.seq = row.seq;
    live.updated_ms = row.updated_ms;
    if (!row.status.empty()) {
      if (auto status = msg::parse<msg::TaskStatus>(row.status)) live.status = std::move(*status);
    }
    tasks.emplace(row.tid, std::move(live));
  }
  return {};
}

Result<Accepted> Inbox::Impl::accept(const msg::Command& command) {
  std::unique_lock lock(mutex);
  const auto known = tasks.find(command.tid);
  if (known != tasks.end() && known->second.command.cmdid == command.cmdid) {
    Live& live = known->second;
    if (!live.status) return Accepted::duplicate;
    bus::Outgoing message{options.exchange, options.routing_key, msg::serialize(*live.status),
                          live.status->msgid};
    const std::int64_t seq = live.seq;
    live.in_flight_seq = seq;
    live.tried_at = clock.boot_ms();
    lock.unlock();
    publish(command.tid, seq, std::move(message));
    return Accepted::duplicate;
  }
  auto seen = store->knows(command.cmdid);
  if (!seen) return fail(seen.error());
  if (*seen) return Accepted::stale;
  const std::int64_t now_ms = clock.wall_ms();
  Live fresh;
  // Beginning at the time keeps the order even if this database was lost in between.
  fresh.seq = now_ms;
  if (known != tasks.end()) {
    const Live& old = known->second;
    const auto newest = std::pair(old.command.epoch, old.command.attempt);
    const bool is_older = std::pair(command.epoch, command.attempt) < newest;
    const bool is_new_run = is_deleted(old.status) && command.ts > old.command.ts;
    if (is_older && !is_new_run) return Accepted::stale;
    fresh.seq = std::max(old.seq, now_ms);
  }
  fresh.command = command;
  fresh.updated_ms = now_ms;
  Row row{command.tid, command.cmdid,           command.op, command.epoch, command.attempt,
          fresh.seq,   msg::serialize(command), {},         true,          false,
          now_ms};
  if (auto ok = store->put_command(row); !ok) return fail(ok.error());
  tasks.insert_or_assign(command.tid, std::move(fresh));
  return command.deadline != 0 && command.deadline < now_ms ? Accepted::expired : Accepted::fresh;
}

/// Makes `report` the task's status, on disk. Call with the mutex held; publish without it.
Result<bus::Outgoing> Inbox::Impl::store_report(Live& live, const Report& report) {
  msg::TaskStatus status;
  status.phase = to_string(report.at.phase);
  status.state = to_string(report.at.state);
  status.event = to_string(report.event);
  status.progress = std::clamp(report.progress, 0, 100);
  status.tid = report.tid;
  status.cmdid = report.cmdid;
  status.prompt = cut(report.prompt, kTextBytes);
  status.errormsg = cut(report.warning, kTextBytes);
  if (report.error) {
    status.failed = 1;
    status.errormsg = cut(report.error->message, kTextBytes);
  }
  status.final = report.final ? 1 : 0;
  status.done = report.final && !report.error ? 1 : 0;
  status.nid = options.nid;
  status.booted_at = options.booted_at;
  status.epoch = live.command.epoch;
  status.attempt = live.command.attempt;
  status.seq = live.seq + 1;
  status.bytes_done = std::max<std::int64_t>(0, report.bytes_done);
  status.bytes_total = std::max<std::int64_t>(0, report.bytes_total);
  status.bytes_per_s = report.final ? 0 : static_cast<std::int64_t>(live.rate.bytes_per_second());
  status.ts = clock.wall_ms();
  status.msgid = new_command_id().str();
  status.receipt = cut(report.receipt, kReceiptBytes);
  status.database_receipt = cut(report.database_receipt, kReceiptBytes);
  status.snapshot = report.snapshot;
  std::string body = msg::serialize(status);
  const bool finished = live.finished || report.final;
  if (auto ok = store->put_status(report.tid, status.seq, body, finished, status.ts); !ok)
    return fail(ok.error());
  live.seq = status.seq;
  live.finished = finished;
  live.sent = false;
  live.updated_ms = status.ts;
  live.tried_at = clock.boot_ms();
  live.in_flight_seq = status.seq;
  live.held_back.reset();
  bus::Outgoing message{options.exchange, options.routing_key, std::move(body), status.msgid};
  live.status = std::move(status);
  return message;
}

Result<> Inbox::Impl::report(const Report& report) {
  std::unique_lock lock(mutex);
  const auto found = tasks.find(report.tid);
  if (found == tasks.end())
    return fail(ErrorCode::not_found, "no command was accepted for task " + report.tid);
  Live& live = found->second;
  if (live.command.cmdid != report.cmdid) {
    return fail(ErrorCode::conflict, "command " + report.cmdid + " of " + report.tid + " was superseded by " +
                                         live.command.cmdid + " (" + live.command.op + ")");
  }
  if (live.measured != report.event) live.rate.reset();
  live.measured = report.event;
  live.rate.add(static_cast<std::uint64_t>(std::max<std::int64_t>(0, report.bytes_done)), clock.boot_ms());
  const bool is_progress = !report.final && !report.error && live.status && live.status->failed == 0 &&
                           live.status->event == to_string(report.event);
  if (is_progress && clock.boot_ms() - live.tried_at < options.progress_interval.count()) {
    live.held_back = report;
    return {};
  }
  auto message = store_report(live, report);
  if (!message) return fail(message.error());
  const std::int64_t seq = live.seq;
  lock.unlock();
  publish(report.tid, seq, std::move(*message));
  return {};
}

void Inbox::Impl::publish(const std::string& tid, std::int64_t seq, bus::Outgoing message) {
  // Kept for good by the quorum queue it is for; the operator's tap beside it must not be waited for.
  message.persistent = false;
  auto queued = bus.publish(std::move(message), [self = weak_from_this(), tid, seq](bus::Outcome outcome) {
    if (auto impl = self.lock()) impl->on_outcome(tid, seq, outcome);
  });
  if (!queued) on_outcome(tid, seq, bus::Outcome::failed);
}

void Inbox::Impl::on_outcome(const std::string& tid, std::int64_t seq, bus::Outcome outcome) {
  std::lock_guard lock(mutex);
  const auto found = tasks.find(tid);
  if (closed || found == tasks.end()) return;
  Live& live = found->second;
  if (live.in_flight_seq == seq) live.in_flight_seq = 0;
  if (outcome == bus::Outcome::returned) {
    obs::error("inbox.status_unroutable",
               {{"tid", tid}, {"exchange", options.exchange}, {"routing_key", options.routing_key}});
  }
  if (outcome != bus::Outcome::confirmed || live.seq != seq || live.sent) return;
  live.sent = true;
  store->mark_sent(tid, seq);
}

void Inbox::Impl::send_unconfirmed(std::int64_t quiet_ms) {
  struct One {
    std::string tid;
    std::int64_t seq;
    bus::Outgoing message;
  };
  std::vector<One> due;
  {
    std::lock_guard lock(mutex);
    const std::int64_t now = clock.boot_ms();
    for (auto& [tid, live] : tasks) {
      if (live.sent || !live.status || live.in_flight_seq == live.seq || now - live.tried_at < quiet_ms)
        continue;
      live.tried_at = now;
      live.in_flight_seq = live.seq;
      due.push_back(
          {tid,
           live.seq,
           {options.exchange, options.routing_key, msg::serialize(*live.status), live.status->msgid}});
    }
  }
  for (auto& one : due) publish(one.tid, one.seq, std::move(one.message));
}

void Inbox::Impl::send_held_back() {
  std::vector<Report> due;
  {
    std::lock_guard lock(mutex);
    const std::int64_t now = clock.boot_ms();
    for (auto& [tid, live] : tasks) {
      if (!live.held_back || now - live.tried_at < options.progress_interval.count()) continue;
      due.push_back(std::move(*live.held_back));
      live.held_back.reset();
    }
  }
  for (const auto& one : due) {
    std::unique_lock lock(mutex);
    const auto found = tasks.find(one.tid);
    // Something newer may have been told between the two locks; then this is history.
    if (found == tasks.end() || found->second.command.cmdid != one.cmdid || found->second.finished ||
        found->second.held_back || !found->second.status ||
        found->second.status->event != to_string(one.event)) {
      continue;
    }
    auto message = store_report(found->second, one);
    if (!message) continue;
    const std::int64_t seq = found->second.seq;
    lock.unlock();
    publish(one.tid, seq, std::move(*message));
  }
}

void Inbox::Impl::retain() {
  std::lock_guard lock(mutex);
  if (auto ok = store->flush(); !ok) {
    // Harmless: what was sent is sent once more after the next start.
    obs::warn("inbox.mark_failed", {{"reason", ok.error().message}});
  }
  const std::int64_t now = clock.boot_ms();
  if (retention_at != 0 && now < retention_at) return;
  retention_at = now + kRetentionIntervalMs;
  const auto kept_ms = std::chrono::duration_cast<std::chrono::milliseconds>(options.kept_for).count();
  const std::int64_t before_ms = clock.wall_ms() - kept_ms;
  for (auto at = tasks.begin(); at != tasks.end();) {
    const Live& live = at->second;
    const bool old = live.finished && live.sent && live.updated_ms < before_ms && is_over(live.status);
    if (old && store->forget_task(at->first)) {
      at = tasks.erase(at);
    } else {
      ++at;
    }
  }
  if (auto ok = store->forget_commands(before_ms, options.kept_commands); !ok) {
    obs::warn("inbox.retention_failed", {{"reason", ok.error().message}});
  }
}

Inbox::Inbox(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}

Inbox::~Inbox() {
  stop();
  std::lock_guard lock(impl_->mutex);
  impl_->closed = true;
}

Result<std::unique_ptr<Inbox>> Inbox::open(Options options, bus::Bus& bus, const Clock& clock) {
  auto store = Store::open(options.file);
  if (!store) return fail(store.error());
  auto impl = std::make_shared<Impl>(std::move(options), bus, clock);
  impl->store = std::move(*store);
  if (auto ok = impl->load(); !ok) return fail(ok.error());
  return std::unique_ptr<Inbox>(new Inbox(std::move(impl)));
}

Result<Accepted> Inbox::accept(const msg::Command& command) {
  return impl_->accept(command);
}
Result<> Inbox::report(const Report& report) {
  return impl_->report(report);
}

std::vector<Entry> Inbox::tasks() const {
  std::lock_guard lock(impl_->mutex);
  std::vector<Entry> all;
  for (const auto& [tid, live] : impl_->tasks) all.push_back({live.command, live.status, live.finished});
  return all;
}

std::vector<Entry> Inbox::unfinished() const {
  auto open = tasks();
  std::erase_if(open, [](const Entry& entry) { return entry.finished; });
  // UUIDv7: the text order is the order of their making.
  std::sort(open.begin(), open.end(),
            [](const Entry& a, const Entry& b) { return a.command.cmdid < b.command.cmdid; });
  return open;
}

std::optional<Entry> Inbox::find(const std::string& tid) const {
  std::lock_guard lock(impl_->mutex);
  const auto found = impl_->tasks.find(tid);
  if (found == impl_->tasks.end()) return std::nullopt;
  return Entry{found->second.command, found->second.status, found->second.finished};
}

void Inbox::resend() {
  impl_->send_unconfirmed(0);
}

void Inbox::tick() {
  impl_->send_held_back();
  if (impl_->bus.is_ready()) impl_->send_unconfirmed(impl_->options.resend_interval.count());
  impl_->retain();
}

void Inbox::start() {
  impl_->ticker = std::jthread([this](std::stop_token stop) {
    std::mutex idle;
    std::unique_lock lock(idle);
    while (!impl_->wake.wait_for(lock, stop, kTickInterval, [&] { return stop.stop_requested(); })) tick();
  });
}

void Inbox::stop() {
  if (!impl_->ticker.joinable()) return;
  impl_->ticker.request_stop();
  impl_->ticker.join();
}

Error expired_error(const msg::Command& command, std::int64_t now_ms) {
  return {ErrorCode::timeout,
          command.op + " came " + std::to_string((now_ms - command.deadline) / 1000) +
              " s after its deadline and was not begun; try again, and if it repeats compare the clocks of "
              "the hosts",
          {}};
}

}  // namespace educloud::inbox
