#include "cc/disks/disk_submit.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <unordered_set>
#include <vector>

#include "common/chunk/frame.hpp"
#include "common/chunk/manifest.hpp"
#include "common/image/data_runs.hpp"
#include "common/sys/file.hpp"

namespace educloud::cc {
namespace {

using chunk::ChunkId;
using chunk::kChunkBytes;

/// Chunks hashed, asked for and sent at once: 8 MiB.
constexpr std::size_t kWindow = 128;
/// walrus looks for every chunk and syncs before it answers.
constexpr std::chrono::seconds kPublishPatience{300};

bool is_zero(std::span<const char> data) {
  return data.empty() || (data[0] == 0 && std::memcmp(data.data(), data.data() + 1, data.size() - 1) == 0);
}

class Submit {
 public:
  Submit(sys::Fd file, std::uint64_t size, const transfer::ChunkRemote& remote, std::stop_token stop)
      : file_(std::move(file)), map_(size), client_(remote), stop_(std::move(stop)) {}

  /// Numbers of the chunks that hold data, rising.
  Result<std::vector<std::uint64_t>> plan() const;
  Result<> send(std::uint64_t chunk);
  Result<> send_groups();
  Result<> flush();
  const chunk::DiskMap& map() const { return map_; }

 private:
  Result<> add(const ChunkId& id, std::span<const char> raw);

  const sys::Fd file_;
  chunk::DiskMap map_;
  transfer::ChunkClient client_;
  const std::stop_token stop_;
  chunk::FrameEncoder encoder_;
  std::unordered_set<ChunkId, chunk::ChunkIdHash> seen_;
  std::vector<std::pair<ChunkId, std::string>> waiting_;
};

Result<std::vector<std::uint64_t>> Submit::plan() const {
  std::vector<std::uint64_t> out;
  auto ok = image::for_each_data_run(file_.get(), map_.disk_bytes(),
                                     [&](std::uint64_t offset, std::uint64_t length) -> Result<> {
                                       auto first = offset / kChunkBytes;
                                       if (!out.empty() && out.back() == first) ++first;
                                       for (; first * kChunkBytes < offset + length; ++first)
                                         out.push_back(first);
                                       return {};
                                     });
  if (!ok) return fail(ok.error());
  return out;
}

Result<> Submit::send(std::uint64_t chunk) {
  std::string raw(chunk::chunk_length(map_.disk_bytes(), chunk), '\0');
  for (std::size_t done = 0; done < raw.size();) {
    const auto got = ::pread(file_.get(), raw.data() + done, raw.size() - done,
                             static_cast<off_t>(chunk * kChunkBytes + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(errno_error("read a database disk", errno));
    if (got == 0) return fail(ErrorCode::corrupt, "a database disk became shorter while it was read");
    done += static_cast<std::size_t>(got);
  }
  if (is_zero(raw)) return {};
  const auto id = ChunkId::of(raw);
  map_.set(chunk, id);
  return add(id, raw);
}

Result<> Submit::add(const ChunkId& id, std::span<const char> raw) {
  if (!seen_.insert(id).second) return {};
  waiting_.emplace_back(id, std::string(raw.begin(), raw.end()));
  return waiting_.size() < kWindow ? Result<>{} : flush();
}

Result<> Submit::flush() {
  if (stop_.stop_requested()) return fail(ErrorCode::cancelled, "the submit was interrupted");
  if (waiting_.empty()) return {};
  std::vector<ChunkId> ids;
  for (const auto& [id, raw] : waiting_) ids.push_back(id);
  auto missing = client_.missing(ids, stop_);
  if (!missing) return fail(missing.error());
  std::string frames;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (!(*missing)[i]) continue;
    if (auto made = encoder_.append(ids[i], waiting_[i].second, frames); !made) return fail(made.error());
  }
  waiting_.clear();
  return frames.empty() ? Result<>{} : client_.store(frames, stop_);
}

Result<> Submit::send_groups() {
  for (const auto& ref : map_.manifest().groups) {
    if (auto ok = add(ref.id, map_.groups().at(ref.index).encode()); !ok) return ok;
  }
  return flush();
}

}  // namespace

Result<std::string> submit_disk(const std::filesystem::path& file, const transfer::ChunkRemote& remote,
                                transfer::ChunkClient::Publish publish,
                                const std::function<void(std::uint64_t done, std::uint64_t total)>& on_bytes,
                                std::stop_token stop) {
  auto fd = sys::open_file(file, O_RDONLY);
  if (!fd) return fail(fd.error());
  struct stat status {};
  if (::fstat(fd->get(), &status) != 0) return fail(errno_error("stat " + file.string(), errno));
  Submit submit(std::move(*fd), static_cast<std::uint64_t>(status.st_size), remote, stop);
  auto chunks = submit.plan();
  if (!chunks) return fail(chunks.error());
  const auto total = chunks->size() * kChunkBytes;
  for (std::size_t i = 0; i < chunks->size(); ++i) {
    if (on_bytes && i % kWindow == 0) on_bytes(i * kChunkBytes, total);
    if (auto ok = submit.send((*chunks)[i]); !ok) return fail(ok.error());
  }
  if (auto ok = submit.flush(); !ok) return fail(ok.error());
  if (auto ok = submit.send_groups(); !ok) return fail(ok.error());
  if (on_bytes) on_bytes(total, total);
  auto patient = remote;
  patient.client.io_timeout = kPublishPatience;
  publish.manifest = submit.map().manifest().encode();
  return transfer::ChunkClient(std::move(patient)).publish(publish, std::move(stop));
}

}  // namespace educloud::cc
