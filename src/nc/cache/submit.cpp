#include "nc/cache/submit.hpp"

#include <algorithm>
#include <mutex>
#include <thread>
#include <unordered_set>

#include "common/chunk/frame.hpp"
#include "common/obs/log.hpp"
#include "nc/cache/submit_retry.hpp"

namespace educloud::nc {
namespace {

using chunk::ChunkId;
using chunk::kChunkBytes;

/// What one connection reads, hashes and sends at once.
constexpr std::uint64_t kWindowBytes = 4u << 20;
constexpr std::uint64_t kLeastWindowBytes = 1u << 20;
constexpr int kMaxConnections = 16;
constexpr int kMaxPasses = 3;

/// Chunks [first, first + count).
struct Segment {
  std::uint64_t first = 0;
  std::uint64_t count = 0;
};
using Window = std::vector<Segment>;

bool is_zero(std::span<const char> data) {
  // Compares the data with itself one byte on: memcmp uses the CPU's widest loads.
  return data.empty() || (data[0] == 0 && std::memcmp(data.data(), data.data() + 1, data.size() - 1) == 0);
}

/// One submit: the windows are worked off by as many threads as there are connections.
class Submit {
 public:
  Submit(const SubmitRequest& request, const image::LayeredDisk& disk,
         const std::function<void(std::uint64_t, std::uint64_t)>& on_bytes)
      : request_(request),
        disk_(disk),
        on_bytes_(on_bytes),
        retry_(request.stall_timeout),
        map_(disk_.disk_bytes()) {}

  Result<SubmitReport> run(const std::stop_token& stop);

 private:
  /// A thread's own.
  struct Worker {
    transfer::ChunkClient client;
    chunk::FrameEncoder encoder;
    std::string raw;     ///< of a window, one chunk after the other
    std::string frames;  ///< of it, what is sent
  };
  struct Changed {
    ChunkId id;
    std::size_t offset = 0;  ///< in Worker::raw
    std::uint32_t length = 0;
  };

  Result<> plan();
  void start_from_base();
  void work(const std::stop_token& stop);
  Result<> send_window(Worker& worker, const Window& window, const std::stop_token& stop);
  Result<std::vector<Changed>> hash_window(Worker& worker, const Window& window);
  Result<> send_missing(Worker& worker, std::span<const Changed> changed, const std::stop_token& stop);
  Result<> send_groups(Worker& worker, const chunk::Manifest& manifest, const std::stop_token& stop);
  void fail_all(const Error& error);

  const SubmitRequest& request_;
  const image::LayeredDisk& disk_;
  const std::function<void(std::uint64_t, std::uint64_t)>& on_bytes_;
  SharedRetry retry_;
  std::vector<Window> windows_;
  std::stop_source failed_;

  std::mutex mutex_;
  std::size_t next_window_ = 0;                            // under mutex_
  chunk::DiskMap map_;                                     // under mutex_
  std::unordered_set<ChunkId, chunk::ChunkIdHash> taken_;  // under mutex_: some thread sees to it
  SubmitReport report_;                                    // under mutex_
  std::uint64_t done_bytes_ = 0;                           // under mutex_
  std::optional<Error> error_;                             // under mutex_: the first
};

void Submit::start_from_base() {
  const auto chunks = chunk::chunk_count(disk_.disk_bytes());
  for (const auto& [index, group] : request_.base.groups()) {
    for (std::uint32_t i = 0; i < chunk::kGroupChunks; ++i) {
      const auto at = std::uint64_t{index} * chunk::kGroupChunks + i;
      if (at < chunks && !group.chunks[i].is_hole()) map_.set(at, group.chunks[i]);
    }
  }
}

/// Cuts what must be read into windows; makes the holes at once.
Result<> Submit::plan() {
  auto runs = disk_.runs(request_.changed_layers);
  if (!runs) return fail(runs.error());
  const auto size = disk_.disk_bytes(), base_size = request_.base.disk_bytes();
  const auto chunks = chunk::chunk_count(size);
  std::vector<Segment> segments;
  // A disk that grew or shrank has one chunk of another length, whatever the layers say about it.
  std::optional<std::uint64_t> resized;
  if (size != base_size && std::min(size, base_size) > 0) {
    const auto last = chunk::chunk_count(std::min(size, base_size)) - 1;
    if (chunk::chunk_length(size, last) != chunk::chunk_length(base_size, last)) resized = last;
  }
  for (const auto& run : *runs) {
    if (run.first >= chunks) break;
    const auto end = std::min(run.first + run.count, chunks);
    if (resized && *resized < run.first) segments.push_back({*std::exchange(resized, std::nullopt), 1});
    if (resized && *resized < end) resized.reset();
    if (run.state == image::ClusterState::data) {
      segments.push_back({run.first, end - run.first});
      continue;
    }
    for (auto at = run.first; at < end && run.state == image::ClusterState::zero; ++at) {
      if (map_.at(at).is_hole()) continue;
      map_.set(at, {});
      report_.changed_bytes += chunk::chunk_length(size, at);
    }
  }
  if (resized) segments.push_back({*resized, 1});
  for (const auto& one : segments) {
    const auto end = std::min((one.first + one.count) * kChunkBytes, size);
    report_.candidate_bytes += end - one.first * kChunkBytes;
  }
  const auto share = report_.candidate_bytes / static_cast<std::uint64_t>(request_.connections * 2);
  const auto most = std::clamp(share, kLeastWindowBytes, kWindowBytes) / kChunkBytes;
  std::uint64_t room = 0;
  for (auto left : segments) {
    while (left.count > 0) {
      if (room == 0) {
        windows_.emplace_back();
        room = most;
      }
      const auto piece = std::min(left.count, room);
      windows_.back().push_back({left.first, piece});
      left.first += piece;
      left.count -= piece;
      room -= piece;
    }
  }
  return {};
}

void Submit::fail_all(const Error& error) {
  {
    const std::lock_guard lock(mutex_);
    if (!error_) error_ = error;
  }
  failed_.request_stop();
}

void Submit::work(const std::stop_token& stop) {
  Worker worker{transfer::ChunkClient(request_.remote), {}, {}, {}};
  for (;;) {
    std::size_t index = 0;
    {
      const std::lock_guard lock(mutex_);
      if (next_window_ == windows_.size() || error_) return;
      index = next_window_++;
    }
    if (auto ok = send_window(worker, windows_[index], stop); !ok) return fail_all(ok.error());
  }
}

Result<> Submit::send_window(Worker& worker, const Window& window, const std::stop_token& stop) {
  if (stop.stop_requested()) return fail(ErrorCode::cancelled, "the submit was interrupted");
  auto changed = hash_window(worker, window);
  if (!changed) return fail(changed.error());
  if (auto ok = send_missing(worker, *changed, stop); !ok) return ok;
  std::uint64_t done = 0;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& one : window) {
      const auto end = std::min((one.first + one.count) * kChunkBytes, disk_.disk_bytes());
      done_bytes_ += end - one.first * kChunkBytes;
    }
    done = done_bytes_;
  }
  if (on_bytes_) on_bytes_(done, report_.candidate_bytes);
  return {};
}

/// Reads the window into worker.raw; what differs from the base goes into the map, and is returned unless
/// another thread sees to the same content.
Result<std::vector<Submit::Changed>> Submit::hash_window(Worker& worker, const Window& window) {
  const auto size = disk_.disk_bytes();
  std::uint64_t bytes = 0;
  for (const auto& one : window) bytes += one.count * kChunkBytes;
  if (worker.raw.size() < bytes) worker.raw.resize(bytes);
  struct Hashed {
    std::uint64_t chunk;
    Changed what;
  };
  std::vector<Hashed> different;
  std::size_t at = 0;
  for (const auto& one : window) {
    const auto offset = one.first * kChunkBytes;
    const auto length = std::min((one.first + one.count) * kChunkBytes, size) - offset;
    const std::span<char> data(worker.raw.data() + at, length);
    if (auto ok = disk_.read(offset, data); !ok) return fail(ok.error());
    for (std::uint64_t i = 0; i < one.count; ++i) {
      const auto chunk_length = chunk::chunk_length(size, one.first + i);
      const auto piece = data.subspan(i * kChunkBytes, chunk_length);
      const ChunkId id = is_zero(piece) ? ChunkId{} : ChunkId::of(piece);
      if (id == request_.base.at(one.first + i)) continue;
      different.push_back({one.first + i, {id, at + i * kChunkBytes, chunk_length}});
    }
    at += one.count * kChunkBytes;
  }
  std::vector<Changed> mine;
  const std::lock_guard lock(mutex_);
  for (const auto& [index, what] : different) {
    map_.set(index, what.id);
    report_.changed_bytes += what.length;
    if (!what.id.is_hole() && taken_.insert(what.id).second) mine.push_back(what);
  }
  return mine;
}

Result<> Submit::send_missing(Worker& worker, std::span<const Changed> changed, const std::stop_token& stop) {
  if (changed.empty()) return {};
  std::vector<ChunkId> ids;
  ids.reserve(changed.size());
  for (const auto& one : changed) ids.push_back(one.id);
  auto missing = retry_.run(stop, [&] { return worker.client.missing(ids, stop); });
  if (!missing) return fail(missing.error());
  worker.frames.clear();
  for (std::size_t i = 0; i < changed.size(); ++i) {
    if (!(*missing)[i]) continue;
    const std::span<const char> raw(worker.raw.data() + changed[i].offset, changed[i].length);
    if (auto made = worker.encoder.append(changed[i].id, raw, worker.frames); !made)
      return fail(made.error());
  }
  if (worker.frames.empty()) return {};
  auto stored = retry_.run(stop, [&] { return worker.client.store(worker.frames, stop); });
  if (!stored) return stored;
  const std::lock_guard lock(mutex_);
  report_.sent_bytes += worker.frames.size();
  return {};
}

Result<> Submit::send_groups(Worker& worker, const chunk::Manifest& manifest, const std::stop_token& stop) {
  std::vector<Changed> changed;
  std::size_t used = 0;
  const auto flush = [&]() -> Result<> {
    auto sent = send_missing(worker, changed, stop);
    changed.clear();
    used = 0;
    return sent;
  };
  for (const auto& ref : request_.base.groups_differing(manifest)) {
    const auto encoded = map_.groups().at(ref.index).encode();
    if (used + encoded.size() > kWindowBytes) {
      if (auto ok = flush(); !ok) return ok;
    }
    if (worker.raw.size() < used + encoded.size()) worker.raw.resize(kWindowBytes);
    encoded.copy(worker.raw.data() + used, encoded.size());
    changed.push_back({ref.id, used, static_cast<std::uint32_t>(encoded.size())});
    used += encoded.size();
  }
  return flush();
}

Result<SubmitReport> Submit::run(const std::stop_token& stop) {
  start_from_base();
  if (auto ok = plan(); !ok) return fail(ok.error());
  if (on_bytes_) on_bytes_(0, report_.candidate_bytes);
  const std::stop_callback stopped(stop, [this] { failed_.request_stop(); });
  {
    std::vector<std::jthread> threads;
    const auto count = std::min<std::size_t>(static_cast<std::size_t>(request_.connections), windows_.size());
    for (std::size_t i = 0; i < count; ++i) {
      threads.emplace_back([this] {
        try {
          work(failed_.get_token());
        } catch (const std::exception& e) {
          fail_all({ErrorCode::internal, std::string("submit: ") + e.what(), {}});
        }
      });
    }
  }
  if (error_) return fail(*error_);
  if (stop.stop_requested()) return fail(ErrorCode::cancelled, "the submit was interrupted");
  const auto manifest = map_.manifest();
  Worker worker{transfer::ChunkClient(request_.remote), {}, {}, {}};
  if (auto ok = send_groups(worker, manifest, stop); !ok) return fail(ok.error());
  const transfer::ChunkClient::Publish publish{manifest.encode(), request_.parent, request_.if_current,
                                               request_.cmdid};
  auto receipt = retry_.run(stop, [&] { return worker.client.publish(publish, stop); });
  if (!receipt) return fail(receipt.error());
  report_.receipt = std::move(*receipt);
  report_.digest = manifest.digest();
  return report_;
}

}  // namespace

Result<SubmitReport> submit_changes(const SubmitRequest& request,
                                    const std::function<void(std::uint64_t, std::uint64_t)>& on_bytes,
                                    std::stop_token stop) {
  if (request.connections < 1 || request.connections > kMaxConnections) {
    return fail(ErrorCode::invalid_argument,
                "a submit over " + std::to_string(request.connections) + " connections");
  }
  auto disk = image::LayeredDisk::open(request.layers);
  if (!disk) return fail(disk.error());
  for (int passes_left = kMaxPasses;; --passes_left) {
    auto report = Submit(request, *disk, on_bytes).run(stop);
    const bool is_lost = !report && report.error().code == ErrorCode::corrupt;
    if (!is_lost || passes_left == 1) return report;
    // The store had a chunk when we asked, and has it no more: a disk or a kill took it. It is asked again.
    obs::warn("submit.again", {{"reason", report.error().message}});
  }
}

}  // namespace educloud::nc
