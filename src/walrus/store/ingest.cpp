#include "walrus/store/ingest.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bitset>
#include <cerrno>
#include <condition_variable>
#include <optional>
#include <thread>
#include <unordered_set>

#include "common/base/bytes.hpp"
#include "common/sys/file.hpp"

namespace educloud::walrus {
namespace {

using chunk::ChunkId;
using chunk::kChunkBytes;

constexpr std::uint64_t kBatchGroups = 2;
constexpr std::uint64_t kBatchChunks = kBatchGroups * chunk::kGroupChunks;
constexpr std::uint64_t kBatchBytes = kBatchGroups * chunk::kGroupBytes;

bool is_zero(std::span<const char> data) {
  // Compares the bytes with themselves, one further on: memcmp is as fast as memory.
  return data[0] == 0 && std::memcmp(data.data(), data.data() + 1, data.size() - 1) == 0;
}

/// What one worker found in one piece of the disk.
struct Batch {
  std::uint64_t number = 0;  ///< in the order of the disk
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  std::bitset<kBatchChunks> has_data;
  struct Found {
    std::uint64_t chunk = 0;  ///< of the disk
    std::uint32_t begin = 0;  ///< in the buffer
    std::uint32_t length = 0;
    ChunkId id;
  };
  std::vector<Found> found;
  struct Made {
    chunk::FrameHeader header;
    std::size_t begin = 0;  ///< of the frame in `frames`
  };
  std::vector<Made> made;
  std::string frames;
};

/// One ingest under way: workers take batches from a cursor and put them into the store in its order.
class Run {
 public:
  Run(chunk::ChunkStore& chunks, const IngestRequest& request, std::stop_token stop)
      : chunks_(chunks),
        request_(request),
        outer_(std::move(stop)),
        meter_(request.on_bytes, request.disk_bytes),
        map_(std::make_shared<Shared>(request.disk_bytes)) {}

  Result<IngestResult> run();

 private:
  struct Shared {
    explicit Shared(std::uint64_t disk_bytes) : map(disk_bytes) {}
    std::mutex mutex;
    chunk::DiskMap map;
  };

  void work();
  Result<bool> next(Batch& batch);
  Result<> read(Batch& batch, std::string& buffer);
  Result<> compress(Batch& batch, const std::string& buffer, chunk::FrameEncoder& encoder);
  Result<> commit(const Batch& batch);
  Result<> put_groups();
  Result<> check_room() const;
  void stop_with(const Error& error);
  bool is_stopped() const { return failed_.load() || outer_.stop_requested(); }

  chunk::ChunkStore& chunks_;
  const IngestRequest& request_;
  const std::stop_token outer_;
  image::ProgressMeter meter_;
  std::shared_ptr<Shared> map_;
  sys::Fd file_;
  std::uint64_t file_size_ = 0;

  std::mutex cursor_mutex_;
  std::uint64_t position_ = 0;  ///< of the cursor
  std::uint64_t taken_ = 0;     ///< batches

  std::mutex turn_mutex_;
  std::condition_variable turn_changed_;
  std::uint64_t turn_ = 0;  ///< batch that may put now
  std::atomic<bool> failed_ = false;
  std::optional<Error> error_;
  IngestResult result_;
};

void Run::stop_with(const Error& error) {
  const std::lock_guard lock(turn_mutex_);
  if (!error_) error_ = error;
  failed_ = true;
  turn_changed_.notify_all();
}

/// False: nothing is left.
Result<bool> Run::next(Batch& batch) {
  const std::lock_guard lock(cursor_mutex_);
  if (position_ >= file_size_) return false;
  const off_t start = ::lseek(file_.get(), static_cast<off_t>(position_), SEEK_DATA);
  if (start < 0 && errno == ENXIO) {
    position_ = file_size_;
    return false;
  }
  if (start < 0 && errno != EINVAL && errno != EOPNOTSUPP) {
    return fail(errno_error("seek data in " + request_.raw.string(), errno));
  }
  // A file system that knows no holes: all of it is data.
  const auto data = start < 0 ? position_ : static_cast<std::uint64_t>(start);
  if (data >= file_size_) return false;
  batch.number = taken_++;
  batch.offset = data / chunk::kGroupBytes * chunk::kGroupBytes;
  batch.length = std::min(kBatchBytes, file_size_ - batch.offset);
  position_ = batch.offset + batch.length;
  return true;
}

/// The data of the batch into `buffer`, holes between as zeros.
Result<> Run::read(Batch& batch, std::string& buffer) {
  batch.has_data.reset();
  std::uint64_t at = batch.offset;
  const std::uint64_t end = batch.offset + batch.length;
  std::uint64_t bytes = 0;
  while (at < end) {
    off_t start = ::lseek(file_.get(), static_cast<off_t>(at), SEEK_DATA);
    if (start < 0 && errno == ENXIO) break;
    if (start < 0) start = static_cast<off_t>(at);
    off_t stop = ::lseek(file_.get(), start, SEEK_HOLE);
    if (stop < 0) stop = static_cast<off_t>(end);
    const auto from = static_cast<std::uint64_t>(start);
    const auto to = std::min(static_cast<std::uint64_t>(stop), end);
    if (from >= end || to <= from) break;
    const std::uint64_t first = (from - batch.offset) / kChunkBytes;
    const std::uint64_t last = (to - 1 - batch.offset) / kChunkBytes;
    for (std::uint64_t i = first; i <= last; ++i) {
      const bool is_whole =
          from <= batch.offset + i * kChunkBytes && to >= batch.offset + (i + 1) * kChunkBytes;
      if (!batch.has_data[i] && !is_whole) std::memset(buffer.data() + i * kChunkBytes, 0, kChunkBytes);
      batch.has_data.set(i);
    }
    for (std::uint64_t done = from; done < to;) {
      const ssize_t got =
          ::pread(file_.get(), buffer.data() + (done - batch.offset), to - done, static_cast<off_t>(done));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return fail(errno_error("read " + request_.raw.string(), errno));
      if (got == 0) {
        return fail(ErrorCode::corrupt, request_.raw.string() + " became shorter while it was read");
      }
      done += static_cast<std::uint64_t>(got);
    }
    bytes += to - from;
    at = to;
  }
  const std::lock_guard lock(turn_mutex_);
  result_.read_bytes += bytes;
  return {};
}

/// Hashes, and makes frames of what the store has not.
Result<> Run::compress(Batch& batch, const std::string& buffer, chunk::FrameEncoder& encoder) {
  batch.found.clear();
  batch.made.clear();
  batch.frames.clear();
  std::vector<ChunkId> ids;
  for (std::uint64_t i = 0; i < kBatchChunks; ++i) {
    if (!batch.has_data[i]) continue;
    const std::uint64_t chunk = batch.offset / kChunkBytes + i;
    const std::uint32_t length = chunk::chunk_length(request_.disk_bytes, chunk);
    const std::span data(buffer.data() + i * kChunkBytes, length);
    if (is_zero(data)) continue;
    const ChunkId id = ChunkId::of(data);
    ids.push_back(id);
    batch.found.push_back({chunk, static_cast<std::uint32_t>(i * kChunkBytes), length, id});
  }
  if (ids.empty()) return {};
  auto missing = chunks_.missing(ids, true);
  if (!missing) return fail(missing.error());
  std::unordered_set<ChunkId, chunk::ChunkIdHash> seen;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (!(*missing)[i] || !seen.insert(ids[i]).second) continue;
    if (is_stopped()) return fail(ErrorCode::cancelled, "stopped");
    const auto& one = batch.found[i];
    const std::size_t begin = batch.frames.size();
    auto header = encoder.append(one.id, std::span(buffer.data() + one.begin, one.length), batch.frames);
    if (!header) return fail(header.error());
    batch.made.push_back({*header, begin});
  }
  return {};
}

Result<> Run::check_room() const {
  if (request_.store_disk.empty()) return {};
  auto space = sys::disk_space(request_.store_disk);
  if (!space) return fail(space.error());
  if (space->free_bytes >= request_.reserve_bytes) return {};
  return fail(ErrorCode::exhausted, "the disk of " + request_.store_disk.string() + " has only " +
                                        to_string(Bytes{space->free_bytes}) +
                                        " left, as much as must stay free: prune old versions or enlarge it");
}

/// In the order of the disk, so that a version is read from its packs in one go.
Result<> Run::commit(const Batch& batch) {
  {
    std::unique_lock lock(turn_mutex_);
    while (turn_ != batch.number && !is_stopped()) {
      // The token of the caller does not wake us: look from time to time.
      turn_changed_.wait_for(lock, std::chrono::milliseconds(100));
    }
    if (is_stopped()) return fail(ErrorCode::cancelled, "importing was stopped");
  }
  if (!batch.made.empty()) {
    if (auto ok = check_room(); !ok) return ok;
  }
  for (const auto& one : batch.made) {
    const std::span stored(batch.frames.data() + one.begin + chunk::kFrameHeaderBytes,
                           one.header.stored_bytes);
    if (auto ok = chunks_.put(one.header, stored); !ok) return ok;
  }
  {
    const std::lock_guard lock(map_->mutex);
    for (const auto& one : batch.found) map_->map.set(one.chunk, one.id);
  }
  const std::lock_guard lock(turn_mutex_);
  result_.new_chunks += batch.made.size();
  result_.new_bytes += batch.frames.size();
  meter_.at(std::min(batch.offset + batch.length, request_.disk_bytes));
  ++turn_;
  turn_changed_.notify_all();
  return {};
}

void Run::work() {
  std::string buffer(kBatchBytes, '\0');
  chunk::FrameEncoder encoder;
  Batch batch;
  while (!is_stopped()) {
    auto more = next(batch);
    if (!more) return stop_with(more.error());
    if (!*more) return;
    auto done = read(batch, buffer);
    if (done) done = compress(batch, buffer, encoder);
    if (done) done = commit(batch);
    if (!done) return stop_with(done.error());
  }
}

Result<> Run::put_groups() {
  chunk::FrameEncoder encoder;
  std::vector<ChunkId> ids;
  std::vector<std::string> encoded;
  const auto put_missing = [&]() -> Result<> {
    auto missing = chunks_.missing(ids, true);
    if (!missing) return fail(missing.error());
    for (std::size_t i = 0; i < ids.size(); ++i) {
      if (!(*missing)[i]) continue;
      std::string frame;
      auto header = encoder.append(ids[i], encoded[i], frame);
      if (!header) return fail(header.error());
      if (auto ok = chunks_.put(*header, std::span(frame).subspan(chunk::kFrameHeaderBytes)); !ok) return ok;
    }
    ids.clear();
    encoded.clear();
    return {};
  };
  for (const auto& [index, group] : map_->map.groups()) {
    encoded.push_back(group.encode());
    ids.push_back(ChunkId::of(encoded.back()));
    if (ids.size() < 512) continue;
    if (outer_.stop_requested()) return fail(ErrorCode::cancelled, "importing was stopped");
    if (auto ok = put_missing(); !ok) return ok;
  }
  return put_missing();
}

Result<IngestResult> Run::run() {
  auto file = sys::open_file(request_.raw, O_RDONLY | O_NOFOLLOW);
  if (!file) return fail(file.error());
  file_ = std::move(*file);
  struct stat info {};
  if (::fstat(file_.get(), &info) != 0) return fail(errno_error("stat " + request_.raw.string(), errno));
  file_size_ = static_cast<std::uint64_t>(info.st_size);
  if (file_size_ > request_.disk_bytes) {
    return fail(ErrorCode::internal, request_.raw.string() + " is longer than its disk");
  }
  ::posix_fadvise(file_.get(), 0, 0, POSIX_FADV_SEQUENTIAL);
  std::shared_ptr<void> needed;
  if (request_.in_progress != nullptr) {
    needed = request_.in_progress->add([shared = map_] {
      const std::lock_guard lock(shared->mutex);
      std::vector<ChunkId> ids;
      for (const auto& [index, group] : shared->map.groups()) {
        for (const auto& id : group.chunks) {
          if (!id.is_hole()) ids.push_back(id);
        }
      }
      return ids;
    });
  }
  {
    std::vector<std::jthread> workers;
    for (unsigned i = 0; i < std::max(1u, request_.threads); ++i) workers.emplace_back([this] { work(); });
  }
  if (error_) return fail(*error_);
  if (outer_.stop_requested()) return fail(ErrorCode::cancelled, "importing was stopped");
  if (auto ok = put_groups(); !ok) return fail(ok.error());
  if (auto ok = chunks_.flush(); !ok) return fail(ok.error());
  meter_.at(request_.disk_bytes);
  result_.map = map_->map;
  return std::move(result_);
}

}  // namespace

Result<IngestResult> ingest(chunk::ChunkStore& chunks, const IngestRequest& request, std::stop_token stop) {
  return Run(chunks, request, std::move(stop)).run();
}

}  // namespace educloud::walrus
