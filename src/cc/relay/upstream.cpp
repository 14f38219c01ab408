#include "cc/relay/upstream.hpp"

#include <algorithm>

#include "cc/relay/memory_frame.hpp"
#include "common/obs/log.hpp"
#include "common/obs/metrics.hpp"
#include "common/sys/pause.hpp"

namespace educloud::cc {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

/// Frames are told of in groups while no reader waits.
constexpr std::size_t kGroupFrames = 16;
/// Of frames held in memory, because the cache can not take them (full of what is in use, or the disk is).
constexpr std::uint64_t kMemoryBytes = 32ull << 20;
constexpr std::chrono::seconds kMemoryWait{10};
/// What no user waits for gets one frame in this time while users use up the limit: walrus must not take the
/// connection for dead.
constexpr milliseconds kLongestYield{1000};

bool is_low(int priority) {
  return priority > static_cast<int>(transfer::Priority::user);
}

std::vector<chunk::ChunkId> ids_of(std::span<const ChunkKey> keys) {
  std::vector<chunk::ChunkId> out;
  out.reserve(keys.size());
  for (const auto& key : keys) out.push_back({key});
  return out;
}

}  // namespace

struct Upstream::Fetching {
  FetchQueue::Batch batch;
  std::size_t come = 0;        ///< of the batch's keys, in order
  std::vector<ChunkKey> keys;  ///< come and not told yet
  std::vector<Result<transfer::Frame>> frames;
  std::uint64_t bytes = 0;
};

Upstream::Upstream(Options options, WalrusClients& walrus, chunk::ChunkStore& store, const Clock& clock)
    : options_(std::move(options)),
      walrus_(walrus),
      store_(store),
      clock_(clock),
      queue_(options_.first_batch),
      pause_(options_.first_pause),
      limit_(options_.uplink),
      memory_bytes_(std::make_shared<std::atomic<std::uint64_t>>(0)) {
  for (int i = 0; i < options_.connections; ++i) {
    workers_.emplace_back([this](const std::stop_token& stop) { work(stop); });
  }
}

Upstream::~Upstream() {
  stop();
}

void Upstream::stop() {
  for (auto& worker : workers_) worker.request_stop();
  for (auto& worker : workers_) {
    if (worker.joinable()) worker.join();
  }
  const std::lock_guard lock(mutex_);
  stopped_ = true;
  for (auto& [reader, mailbox] : mailboxes_) mailbox->close();
}

std::uint64_t Upstream::want(const transfer::ChunkCaller& caller, std::span<const FetchQueue::Wanted> wanted,
                             std::shared_ptr<Mailbox> mailbox) {
  std::uint64_t reader = 0;
  {
    const std::lock_guard lock(mutex_);
    reader = ++last_reader_;
    if (stopped_) mailbox->close();
    mailboxes_.emplace(reader, std::move(mailbox));
    queue_.want(reader, static_cast<int>(caller.priority), {caller.imgid, caller.version}, wanted);
  }
  work_there_.notify_all();
  return reader;
}

void Upstream::drop(std::uint64_t reader) {
  const std::lock_guard lock(mutex_);
  queue_.drop(reader);
  mailboxes_.erase(reader);
}

std::optional<FetchQueue::Batch> Upstream::take_now() {
  if (steady_clock::now() < resume_at_) return std::nullopt;
  // One connection stays free for users.
  const bool may_be_low = low_in_flight_ < std::max(1, options_.connections - 1);
  auto batch = queue_.take(options_.batch, may_be_low ? FetchQueue::kPriorities - 1 : 0);
  if (batch) ++(is_low(batch->priority) ? low_in_flight_ : users_in_flight_);
  return batch;
}

std::optional<FetchQueue::Batch> Upstream::next(const std::stop_token& stop) {
  std::optional<FetchQueue::Batch> batch;
  std::unique_lock lock(mutex_);
  while (!batch && !stop.stop_requested()) {
    const auto now = steady_clock::now();
    const auto resume_at = resume_at_;
    const auto until = resume_at > now ? resume_at : now + std::chrono::hours{1};
    work_there_.wait_until(lock, stop, until, [&] {
      batch = take_now();
      return batch || resume_at_ != resume_at;
    });
  }
  return batch;
}

void Upstream::work(const std::stop_token& stop) {
  while (auto batch = next(stop)) {
    const auto mine = *batch;
    try {
      serve(std::move(*batch), stop);
    } catch (const std::exception& error) {
      obs::error("upstream.threw", {{"error", error.what()}});
      const Error told{ErrorCode::internal, "the relay failed; its log says why"};
      hand_out(mine.keys, {mine.keys.size(), fail(told)});
    }
    {
      const std::lock_guard lock(mutex_);
      --(is_low(mine.priority) ? low_in_flight_ : users_in_flight_);
      queue_.done(mine);
    }
    work_there_.notify_all();
  }
}

void Upstream::serve(FetchQueue::Batch batch, const std::stop_token& stop) {
  skip_present(batch);
  if (batch.keys.empty()) return;
  Fetching fetching;
  fetching.batch = std::move(batch);
  auto fetched = fetch_missing(fetching, stop);
  deliver(fetching);
  obs::metrics().count("educloud_cc_walrus_bytes_total", "Bytes of frames received from walrus",
                       static_cast<double>(fetching.bytes));
  if (!fetched) return after_failure(fetching, fetched.error());
  const std::lock_guard lock(mutex_);
  pause_ = options_.first_pause;
  if (std::exchange(failing_, false)) obs::info("walrus.back");
}

void Upstream::skip_present(FetchQueue::Batch& batch) {
  // Somebody may have brought a chunk between the reader's own look and its place in the line.
  const auto ids = ids_of(batch.keys);
  auto found = store_.find(ids);
  if (!found) return;
  std::vector<ChunkKey> present, rest;
  std::vector<Result<transfer::Frame>> frames;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if ((*found)[i]) {
      present.push_back(batch.keys[i]);
      frames.emplace_back(std::move(*(*found)[i]));
    } else {
      rest.push_back(batch.keys[i]);
    }
  }
  if (present.empty()) return;
  batch.keys = std::move(rest);
  hand_out(present, std::move(frames));
}

Result<> Upstream::fetch_missing(Fetching& fetching, const std::stop_token& stop) {
  const auto& batch = fetching.batch;
  const auto priority = static_cast<transfer::Priority>(batch.priority);
  auto client = walrus_.take({batch.version.first, batch.version.second, "GET", priority});
  auto fetched = client->fetch(
      ids_of(batch.keys),
      [&](const chunk::FrameHeader& header, std::span<const char> stored) {
        return on_frame(fetching, header, stored, stop);
      },
      stop);
  if (!fetched) client.discard();
  return fetched;
}

Result<> Upstream::on_frame(Fetching& fetching, const chunk::FrameHeader& header,
                            std::span<const char> stored, const std::stop_token& stop) {
  if (auto ok = chunk::check_stored(header, stored); !ok) return ok;
  if (fetching.come >= fetching.batch.keys.size() || header.id.bytes != fetching.batch.keys[fetching.come]) {
    return fail(ErrorCode::corrupt, "walrus sent chunk " + header.id.hex() + ", which is not the next one");
  }
  auto frame = keep(header, stored, stop);
  if (!frame) return fail(frame.error());
  fetching.keys.push_back(header.id.bytes);
  fetching.frames.emplace_back(std::move(*frame));
  ++fetching.come;
  fetching.bytes += header.frame_bytes();
  if (is_time_to_deliver(fetching)) deliver(fetching);
  throttle(fetching, header.frame_bytes(), stop);
  return {};
}

Result<transfer::Frame> Upstream::keep(const chunk::FrameHeader& header, std::span<const char> stored,
                                       const std::stop_token& stop) {
  if (store_.put(header, stored)) {
    // Held from now on, so that a cache that is small for what is going on does not drop it before it is
    // sent.
    auto found = store_.find(std::span(&header.id, 1));
    if (found && (*found)[0]) return transfer::Frame(std::move(*(*found)[0]));
  }
  const auto deadline = steady_clock::now() + kMemoryWait;
  while (memory_bytes_->load() >= kMemoryBytes) {
    if (stop.stop_requested()) return fail(ErrorCode::cancelled, "stopped");
    if (steady_clock::now() >= deadline) {
      return fail(ErrorCode::exhausted, "the cache is full of chunks that are in use; raise cache_bytes");
    }
    (void)sys::pause(milliseconds{5}, stop);
  }
  return frame_in_memory(header, stored, memory_bytes_);
}

bool Upstream::is_time_to_deliver(const Fetching& fetching) const {
  // After the put: a reader that begins to wait later than this finds the frame in the store.
  // One that is in memory only is told at once.
  const auto& last = fetching.frames.back();
  const bool in_store = last && std::holds_alternative<chunk::FrameSlice>(*last);
  return waiting_ > 0 || !in_store || fetching.keys.size() >= kGroupFrames;
}

void Upstream::deliver(Fetching& fetching) {
  if (fetching.keys.empty()) return;
  const auto keys = std::exchange(fetching.keys, {});
  hand_out(keys, std::exchange(fetching.frames, {}));
}

void Upstream::hand_out(std::span<const ChunkKey> keys, std::vector<Result<transfer::Frame>> frames) {
  std::vector<std::pair<std::shared_ptr<Mailbox>, std::vector<Mailbox::Item>>> parcels;
  {
    const std::lock_guard lock(mutex_);
    std::unordered_map<std::uint64_t, std::size_t> parcel_of;
    for (std::size_t i = 0; i < keys.size(); ++i) {
      for (const auto& want : queue_.arrived(keys[i])) {
        const auto [it, is_new] = parcel_of.try_emplace(want.reader, parcels.size());
        if (is_new) {
          const auto mailbox = mailboxes_.find(want.reader);
          parcels.emplace_back(mailbox == mailboxes_.end() ? nullptr : mailbox->second,
                               std::vector<Mailbox::Item>{});
        }
        parcels[it->second].second.emplace_back(want.index, frames[i]);
      }
    }
  }
  for (auto& [mailbox, items] : parcels) {
    if (mailbox) mailbox->put(std::move(items));
  }
}

void Upstream::after_failure(Fetching& fetching, const Error& error) {
  const auto rest = std::span<const ChunkKey>(fetching.batch.keys).subspan(fetching.come);
  if (rest.empty()) return;
  switch (error.code) {
    case ErrorCode::not_found:
    case ErrorCode::corrupt: {
      // Frames come in order, so it is the first one that is meant; the others deserve another try.
      obs::warn("chunk.failed", {{"imgid", fetching.batch.version.first},
                                 {"version", fetching.batch.version.second},
                                 {"chunk", chunk::ChunkId{rest.front()}.hex()},
                                 {"error", error.message}});
      hand_out(rest.first(1), {fail(error)});
      const std::lock_guard lock(mutex_);
      return queue_.put_back(fetching.batch, rest.subspan(1));
    }
    case ErrorCode::invalid_argument:
    case ErrorCode::unauthenticated:
    case ErrorCode::permission_denied:
    case ErrorCode::conflict:
    case ErrorCode::too_large:
      obs::warn("walrus.refuses", {{"imgid", fetching.batch.version.first},
                                   {"version", fetching.batch.version.second},
                                   {"error", error.message}});
      return hand_out(rest, {rest.size(), fail(error)});
    case ErrorCode::exhausted:
    case ErrorCode::unavailable:
    case ErrorCode::timeout:
    case ErrorCode::cancelled:
    case ErrorCode::internal: return retry_later(fetching, rest, error);
  }
}

void Upstream::retry_later(Fetching& fetching, std::span<const ChunkKey> keys, const Error& error) {
  const std::lock_guard lock(mutex_);
  for (const auto reader : queue_.readers_of(keys)) {
    if (const auto it = mailboxes_.find(reader); it != mailboxes_.end()) it->second->note_trouble(error);
  }
  queue_.put_back(fetching.batch, keys);
  if (!std::exchange(failing_, true)) obs::warn("walrus.failing", {{"error", error.message}});
  if (fetching.come > 0) pause_ = options_.first_pause;
  resume_at_ = steady_clock::now() + pause_;
  pause_ = std::min(pause_ * 2, options_.longest_pause);
}

bool Upstream::users_wait() {
  const std::lock_guard lock(mutex_);
  return users_in_flight_ > 0 || queue_.waiting(static_cast<int>(transfer::Priority::user)) > 0;
}

milliseconds Upstream::hold_back(const Fetching& fetching, std::uint64_t bytes, bool may_yield) {
  milliseconds delay{0};
  bool limited = false;
  {
    const std::lock_guard lock(limit_mutex_);
    const int minute = minute_of_day();
    const std::int64_t now = clock_.boot_ms();
    if (bytes > 0) limit_.spend(bytes, now, minute);
    delay = limit_.delay(now, minute);
    limited = limit_.rate_at(minute).has_value();
  }
  if (delay.count() > 0) return std::min(delay, milliseconds{500});
  const bool yields = limited && may_yield && is_low(fetching.batch.priority) && users_wait();
  return milliseconds{yields ? 20 : 0};
}

void Upstream::throttle(Fetching& fetching, std::uint64_t bytes, const std::stop_token& stop) {
  if (!limit_.ever_limits()) return;
  const auto yield_until = steady_clock::now() + kLongestYield;
  while (!stop.stop_requested()) {
    const auto delay = hold_back(fetching, std::exchange(bytes, 0), steady_clock::now() < yield_until);
    if (delay.count() == 0) return;
    deliver(fetching);
    (void)sys::pause(delay, stop);
  }
}

int Upstream::minute_of_day() {
  const std::int64_t now_s = clock_.wall_ms() / 1000;
  if (now_s != minute_known_s_) {
    minute_known_s_ = now_s;
    const std::time_t time = now_s;
    std::tm parts{};
    ::localtime_r(&time, &parts);
    minute_ = parts.tm_hour * 60 + parts.tm_min;
  }
  return minute_;
}

}  // namespace educloud::cc
