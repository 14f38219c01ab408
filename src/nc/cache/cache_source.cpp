#include "nc/cache/cache_source.hpp"

#include <algorithm>

#include "common/obs/log.hpp"
#include "common/obs/metrics.hpp"

namespace educloud::nc {
namespace {

using std::chrono::milliseconds;

constexpr std::size_t kMaxServed = 3;
constexpr std::chrono::seconds kServedIdle{30};
/// Less than a neighbour waits without a byte.
constexpr milliseconds kWait{4000};
constexpr milliseconds kStep{20};

std::string text_of(const VersionKey& key) {
  return key.first + " version " + std::to_string(key.second);
}

}  // namespace

/// One request of a neighbour.
class CacheSource::Answer : public transfer::ChunkSource::Reading {
 public:
  Answer(CacheSource& source, VersionKey key, std::vector<chunk::ChunkId> ids, std::stop_token stop)
      : source_(source), key_(std::move(key)), ids_(std::move(ids)), stop_(std::move(stop)) {}
  ~Answer() override {
    obs::metrics().count("educloud_nc_peer_served_bytes_total", "Bytes of frames given to neighbours.",
                         static_cast<double>(bytes_));
  }

  Result<transfer::Frame> frame(std::size_t i) override {
    const auto& id = ids_[i];
    if (auto recent = source_.ring_.find(id)) return sent(std::move(recent));
    const auto deadline = WorkQueue::Clock::now() + kWait;
    // While a fill goes from one stage to the next, the chunk is looked for in each.
    while (!stop_.stop_requested()) {
      if (served_) return from_version(id);
      const auto job = source_.table_.find(key_);
      if (!job) {
        auto found = source_.serve(key_);
        if (!found) return fail(found.error());
        served_ = std::move(*found);
        continue;
      }
      const auto state = job->state();
      if (state) {
        auto frame = from_fill(*state, id, deadline);
        if (frame || frame.error().code != ErrorCode::unavailable) return frame;
      }
      if (WorkQueue::Clock::now() >= deadline)
        return fail(ErrorCode::not_found, "chunk " + id.hex() + " has not come here yet");
      std::this_thread::sleep_for(kStep);
    }
    return fail(ErrorCode::cancelled, "the request was cut");
  }

 private:
  Result<transfer::Frame> sent(std::shared_ptr<const std::string> frame) {
    bytes_ += frame->size();
    return transfer::Frame(std::move(frame));
  }

  /// Errors: unavailable if it is not there yet.
  Result<transfer::Frame> from_fill(FillState& state, const chunk::ChunkId& id, WorkQueue::Time deadline) {
    const auto at = state.find(id);
    if (!at) return fail(ErrorCode::not_found, "chunk " + id.hex() + " is not of " + text_of(key_));
    if (!state.has(*at)) {
      if (state.queue.is_home(*at)) state.queue.to_front(*at);
      if (!state.marks->wait(*at, deadline, stop_))
        return fail(ErrorCode::unavailable, "chunk " + id.hex() + " has not come here yet");
      if (auto recent = source_.ring_.find(id)) return sent(std::move(recent));
    }
    buffer_.resize(chunk::chunk_length(state.plan.disk_bytes, *at));
    if (auto done = state.read(*at, 0, buffer_); !done) return fail(done.error());
    return pack(id);
  }

  Result<transfer::Frame> from_version(const chunk::ChunkId& id) {
    const auto at = served_->index.find(served_->map, id);
    if (!at) return fail(ErrorCode::not_found, "chunk " + id.hex() + " is not of " + text_of(key_));
    buffer_.resize(chunk::chunk_length(served_->map.disk_bytes(), *at));
    if (auto done = served_->disk.read(*at * chunk::kChunkBytes, buffer_); !done) return fail(done.error());
    return pack(id);
  }

  Result<transfer::Frame> pack(const chunk::ChunkId& id) {
    if (!encoder_) encoder_.emplace();
    auto frame = std::make_shared<std::string>();
    auto header = encoder_->append(buffer_, *frame);
    if (!header) return fail(header.error());
    if (header->id != id) {
      obs::error("cache.chunk_damaged",
                 {{"image", key_.first}, {"version", key_.second}, {"chunk", id.hex()}});
      return fail(ErrorCode::not_found, "chunk " + id.hex() + " is damaged here");
    }
    return sent(std::move(frame));
  }

  CacheSource& source_;
  const VersionKey key_;
  const std::vector<chunk::ChunkId> ids_;
  const std::stop_token stop_;
  std::shared_ptr<Served> served_;
  std::optional<chunk::FrameEncoder> encoder_;
  std::string buffer_;
  std::uint64_t bytes_ = 0;
};

Result<std::string> CacheSource::manifest(const transfer::ChunkCaller& caller, std::stop_token) {
  if (const auto job = table_.find({caller.imgid, caller.version})) {
    if (auto text = job->manifest(); !text.empty()) return text;
  }
  auto info = local_.store().find(caller.imgid, caller.version);
  if (!info) return fail(info.error());
  auto root = local_.root(caller.imgid, caller.version);
  if (!root) return fail(root.error());
  return root->encode();
}

Result<std::unique_ptr<transfer::ChunkSource::Reading>> CacheSource::read(const transfer::ChunkCaller& caller,
                                                                          std::vector<chunk::ChunkId> ids,
                                                                          std::stop_token stop) {
  return std::make_unique<Answer>(*this, VersionKey{caller.imgid, caller.version}, std::move(ids),
                                  std::move(stop));
}

Result<std::shared_ptr<CacheSource::Served>> CacheSource::serve(const VersionKey& key) {
  const auto now = std::chrono::steady_clock::now();
  // Under the lock: many neighbours ask at once for what is loaded once.
  const std::lock_guard lock(mutex_);
  const auto known =
      std::find_if(served_.begin(), served_.end(), [&](const auto& one) { return one->key == key; });
  if (known != served_.end()) {
    (*known)->used = now;
    served_.splice(served_.begin(), served_, known);
    return served_.front();
  }
  auto map = local_.map(key.first, key.second);
  if (!map) return fail(map.error());
  auto disk = local_.open_disk(key.first, key.second);
  if (!disk) return fail(disk.error());
  local_.store().touch(key.first, key.second);
  ChunkIndex index(*map);
  served_.push_front(
      std::make_shared<Served>(Served{key, std::move(*map), std::move(index), std::move(*disk), now}));
  if (served_.size() > kMaxServed) served_.pop_back();
  return served_.front();
}

void CacheSource::trim() {
  const auto oldest = std::chrono::steady_clock::now() - kServedIdle;
  const std::lock_guard lock(mutex_);
  served_.remove_if([&](const auto& one) { return one->used < oldest; });
}

}  // namespace educloud::nc
