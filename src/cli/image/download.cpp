#include "cli/image/download.hpp"

#include <fcntl.h>
#include <linux/falloc.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "common/sys/file.hpp"

namespace educloud::cli {
namespace {

constexpr std::size_t kBatch = 64;  ///< chunks asked for at once: 4 MiB
constexpr std::chrono::milliseconds kShow{200};
constexpr std::chrono::milliseconds kPause{300};

std::uint64_t offset_of(std::uint64_t chunk) {
  return chunk * chunk::kChunkBytes;
}

/// One chunk of the disk that has to come.
struct Wanted {
  std::uint64_t chunk = 0;
  chunk::ChunkId id;
};

class Download {
 public:
  Download(const DownloadRequest& request, chunk::DiskMap map, sys::Fd file)
      : request_(request), map_(std::move(map)), file_(std::move(file)) {}

  Result<> prepare();
  Result<> fetch(const std::function<void(std::uint64_t, std::uint64_t)>& on_bytes, std::stop_token stop);
  DownloadReport report() const;

 private:
  Result<> make_hole(std::uint64_t from, std::uint64_t to);
  Result<bool> has(std::uint64_t chunk, const chunk::ChunkId& id);
  void work(std::stop_token stop);
  Result<> fetch_batch(transfer::ChunkClient& client, std::span<const Wanted>& batch, std::stop_token stop);
  bool is_time_to_give_up() const;

  const DownloadRequest& request_;
  const chunk::DiskMap map_;
  sys::Fd file_;
  std::vector<Wanted> wanted_;
  std::uint64_t kept_bytes_ = 0;
  std::atomic<std::size_t> next_{0};
  std::atomic<std::uint64_t> fetched_bytes_{0};
  std::atomic<std::int64_t> moved_at_{0};  ///< steady clock, ns, of the last chunk
  std::mutex mutex_;
  std::condition_variable_any changed_;
  int running_ = 0;             // under mutex_
  std::optional<Error> error_;  // under mutex_: the first
};

std::int64_t now_ns() {
  return std::chrono::steady_clock::now().time_since_epoch().count();
}

/// Whatever an earlier, perhaps other, download left there.
Result<> Download::make_hole(std::uint64_t from, std::uint64_t to) {
  if (from >= to) return {};
  const int done = ::fallocate(file_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                               static_cast<off_t>(from), static_cast<off_t>(to - from));
  if (done == 0) return {};
  return fail(errno_error("fallocate " + request_.file.string(), errno));
}

/// True if the file holds that chunk. A hole of the file is not read.
Result<bool> Download::has(std::uint64_t chunk, const chunk::ChunkId& id) {
  const std::uint32_t length = chunk::chunk_length(map_.disk_bytes(), chunk);
  const auto begin = static_cast<off_t>(offset_of(chunk));
  const off_t data = ::lseek(file_.get(), begin, SEEK_DATA);
  if (data < 0 && errno != ENXIO) return fail(errno_error("lseek " + request_.file.string(), errno));
  if (data < 0 || data >= begin + length) return false;
  std::string bytes(length, '\0');
  const ssize_t got = ::pread(file_.get(), bytes.data(), bytes.size(), begin);
  if (got < 0) return fail(errno_error("read " + request_.file.string(), errno));
  return static_cast<std::size_t>(got) == bytes.size() && chunk::ChunkId::of(bytes) == id;
}

Result<> Download::prepare() {
  const off_t before = ::lseek(file_.get(), 0, SEEK_END);
  if (::ftruncate(file_.get(), static_cast<off_t>(map_.disk_bytes())) != 0)
    return fail(errno_error("ftruncate " + request_.file.string(), errno));
  std::uint64_t end = 0;  // of the data before
  for (const auto& [index, group] : map_.groups()) {
    for (std::uint32_t i = 0; i < chunk::kGroupChunks; ++i) {
      const auto& id = group.chunks[i];
      if (id.is_hole()) continue;
      const std::uint64_t chunk = std::uint64_t{index} * chunk::kGroupChunks + i;
      const std::uint32_t length = chunk::chunk_length(map_.disk_bytes(), chunk);
      if (before > 0) {
        if (auto ok = make_hole(end, offset_of(chunk)); !ok) return ok;
        auto there = has(chunk, id);
        if (!there) return fail(there.error());
        if (*there) {
          kept_bytes_ += length;
          end = offset_of(chunk) + length;
          continue;
        }
      }
      end = offset_of(chunk) + length;
      wanted_.push_back({chunk, id});
    }
  }
  return before > 0 ? make_hole(end, map_.disk_bytes()) : Result<>{};
}

/// Takes what came off the front of `batch`, also if the rest did not.
Result<> Download::fetch_batch(transfer::ChunkClient& client, std::span<const Wanted>& batch,
                               std::stop_token stop) {
  std::vector<chunk::ChunkId> ids;
  for (const auto& one : batch) ids.push_back(one.id);
  chunk::FrameDecoder decoder;
  std::string bytes;
  const auto on_frame = [&](const chunk::FrameHeader& header, std::span<const char> stored) -> Result<> {
    const auto& one = batch.front();
    const std::uint32_t length = chunk::chunk_length(map_.disk_bytes(), one.chunk);
    if (header.raw_bytes != length)
      return fail(ErrorCode::corrupt, "chunk " + one.id.hex() + " has another length than its place");
    bytes.resize(length);
    if (auto ok = decoder.decode(header, stored, bytes); !ok) return ok;
    if (auto ok = sys::pwrite_all(file_.get(), bytes, offset_of(one.chunk)); !ok) return ok;
    batch = batch.subspan(1);
    fetched_bytes_ += length;
    moved_at_ = now_ns();
    return {};
  };
  return client.fetch(ids, on_frame, stop);
}

bool Download::is_time_to_give_up() const {
  return std::chrono::nanoseconds(now_ns() - moved_at_) > request_.patience;
}

void Download::work(std::stop_token stop) {
  transfer::ChunkClient client(request_.version.remote);
  Result<> done;
  while (done) {
    const std::size_t first = next_.fetch_add(kBatch);
    if (first >= wanted_.size()) break;
    auto batch = std::span<const Wanted>(wanted_).subspan(first, std::min(kBatch, wanted_.size() - first));
    done = fetch_batch(client, batch, stop);
    while (!done && is_retryable(done.error().code) && !is_time_to_give_up() && !stop.stop_requested()) {
      std::unique_lock lock(mutex_);
      changed_.wait_for(lock, stop, kPause, [] { return false; });
      lock.unlock();
      done = fetch_batch(client, batch, stop);
    }
  }
  const std::scoped_lock lock(mutex_);
  if (!done && !error_) error_ = done.error();
  if (!done) next_ = wanted_.size();  // the others need not begin another
  --running_;
  changed_.notify_all();
}

Result<> Download::fetch(const std::function<void(std::uint64_t, std::uint64_t)>& on_bytes,
                         std::stop_token stop) {
  moved_at_ = now_ns();
  const auto connections = std::min<std::size_t>(static_cast<std::size_t>(std::max(1, request_.connections)),
                                                 wanted_.size() / kBatch + 1);
  running_ = static_cast<int>(connections);
  std::stop_source ours;
  const std::stop_callback pass_on(stop, [&] { ours.request_stop(); });
  std::vector<std::jthread> threads;
  for (std::size_t i = 0; i < connections; ++i)
    threads.emplace_back([this, &ours] { work(ours.get_token()); });
  {
    std::unique_lock lock(mutex_);
    while (running_ > 0) {
      changed_.wait_for(lock, kShow, [&] { return running_ == 0; });
      if (error_) ours.request_stop();
      lock.unlock();
      on_bytes(kept_bytes_ + fetched_bytes_, map_.data_bytes());
      lock.lock();
    }
  }
  threads.clear();
  if (error_) return fail(*error_);
  if (::fsync(file_.get()) != 0) return fail(errno_error("fsync " + request_.file.string(), errno));
  return {};
}

DownloadReport Download::report() const {
  return {map_.disk_bytes(), map_.data_bytes(), kept_bytes_, fetched_bytes_};
}

}  // namespace

Result<DownloadReport> download_disk(const DownloadRequest& request,
                                     const std::function<void(std::uint64_t, std::uint64_t)>& on_bytes,
                                     std::stop_token stop) {
  transfer::ChunkClient client(request.version.remote);
  auto manifest = client.manifest(request.version.digest, stop);
  if (!manifest) return fail(manifest.error());
  auto map = transfer::fetch_map(client, *manifest, {}, stop);
  if (!map) return fail(map.error());
  auto file = sys::open_file(request.file, O_RDWR | O_CREAT, 0600);
  if (!file) return fail(file.error());
  Download download(request, std::move(*map), std::move(*file));
  if (auto ok = download.prepare(); !ok) return fail(ok.error());
  if (auto ok = download.fetch(on_bytes, stop); !ok) return fail(ok.error());
  return download.report();
}

}  // namespace educloud::cli
