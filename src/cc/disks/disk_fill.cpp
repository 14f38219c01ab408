#include "cc/disks/disk_fill.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <map>
#include <vector>

#include "common/base/bytes.hpp"
#include "common/chunk/manifest.hpp"
#include "common/sys/file.hpp"

namespace educloud::cc {
namespace {

using chunk::ChunkId;

constexpr std::size_t kWindow = 128;  ///< chunks asked for at once: 8 MiB
constexpr std::uint64_t kSector = 512;
/// Left free for everybody else on the file system.
constexpr std::uint64_t kReserveBytes = 256ull << 20;

class Fill {
 public:
  Fill(transfer::ChunkSource& chunks, const DiskSource& source, const std::string& node, std::stop_token stop)
      : chunks_(chunks),
        source_(source),
        stop_(std::move(stop)),
        caller_{source.imgid, source.version, node} {}

  Result<chunk::DiskMap> map();
  using OnBytes = std::function<void(std::uint64_t, std::uint64_t)>;
  Result<> write(const chunk::DiskMap& map, int fd, const OnBytes& on_bytes);

 private:
  /// `take(i, content)` for each of `ids`, in order.
  Result<> read(const std::vector<ChunkId>& ids,
                const std::function<Result<>(std::size_t, std::span<const char>)>& take);
  Result<std::span<const char>> prove(const ChunkId& id, const transfer::Frame& frame);

  transfer::ChunkSource& chunks_;
  const DiskSource& source_;
  const std::stop_token stop_;
  const transfer::ChunkCaller caller_;
  chunk::FrameDecoder decoder_;
  std::vector<char> frame_, content_ = std::vector<char>(chunk::kChunkBytes);
};

/// Valid until the next call.
Result<std::span<const char>> Fill::prove(const ChunkId& id, const transfer::Frame& frame) {
  if (const auto* text = std::get_if<std::shared_ptr<const std::string>>(&frame)) {
    frame_.assign((*text)->begin(), (*text)->end());
  } else {
    const auto& slice = std::get<chunk::FrameSlice>(frame);
    frame_.resize(slice.length);
    for (std::size_t done = 0; done < frame_.size();) {
      const auto got = ::pread(slice.file->get(), frame_.data() + done, frame_.size() - done,
                               static_cast<off_t>(slice.offset + done));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return fail(errno_error("read a pack of the cache", errno));
      if (got == 0) return fail(ErrorCode::unavailable, "a pack of the cache was cut; try again");
      done += static_cast<std::size_t>(got);
    }
  }
  if (frame_.size() < chunk::kFrameHeaderBytes)
    return fail(ErrorCode::corrupt, "half a frame for " + id.hex());
  auto header = chunk::decode_header(std::span(frame_).first(chunk::kFrameHeaderBytes));
  if (!header) return fail(header.error());
  if (header->id != id || header->frame_bytes() != frame_.size()) {
    return fail(ErrorCode::corrupt, "another chunk came for " + id.hex());
  }
  auto ok = decoder_.decode(*header, std::span(frame_).subspan(chunk::kFrameHeaderBytes), content_);
  if (!ok) return fail(ok.error());
  return std::span<const char>(content_.data(), header->raw_bytes);
}

Result<> Fill::read(const std::vector<ChunkId>& ids,
                    const std::function<Result<>(std::size_t, std::span<const char>)>& take) {
  auto reading = chunks_.read(caller_, ids, stop_);
  if (!reading) return fail(reading.error());
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (stop_.stop_requested()) return fail(ErrorCode::cancelled, "making the disk was interrupted");
    auto frame = (*reading)->frame(i);
    if (!frame) return fail(frame.error());
    auto content = prove(ids[i], *frame);
    if (!content) return fail(content.error());
    if (auto ok = take(i, *content); !ok) return ok;
  }
  return {};
}

Result<chunk::DiskMap> Fill::map() {
  auto text = chunks_.manifest(caller_, stop_);
  if (!text) return fail(text.error());
  auto manifest = chunk::Manifest::decode(*text);
  if (!manifest) return fail(manifest.error());
  if (manifest->digest() != source_.digest || manifest->disk_bytes != source_.disk_bytes) {
    return fail(ErrorCode::corrupt, source_.imgid + "/" + std::to_string(source_.version) +
                                        " at walrus is not the version that the cloud controller knows");
  }
  chunk::DiskMap map(manifest->disk_bytes);
  // Groups of the same content are one chunk.
  std::map<ChunkId, std::vector<std::uint32_t>> places;
  for (const auto& group : manifest->groups) places[group.id].push_back(group.index);
  std::vector<ChunkId> ids;
  for (const auto& [id, indexes] : places) ids.push_back(id);
  for (std::size_t at = 0; at < ids.size(); at += kWindow) {
    const std::vector<ChunkId> some(
        ids.begin() + static_cast<std::ptrdiff_t>(at),
        ids.begin() + static_cast<std::ptrdiff_t>(std::min(at + kWindow, ids.size())));
    auto ok = read(some, [&](std::size_t i, std::span<const char> content) -> Result<> {
      for (const auto index : places[some[i]]) {
        if (auto added = map.add_group(index, content); !added) return added;
      }
      return {};
    });
    if (!ok) return fail(ok.error());
  }
  return map;
}

Result<> Fill::write(const chunk::DiskMap& map, int fd, const OnBytes& on_bytes) {
  const auto total = map.data_bytes();
  std::uint64_t done = 0;
  std::vector<ChunkId> ids;
  std::map<ChunkId, std::vector<std::uint64_t>> places;
  const auto flush = [&]() -> Result<> {
    auto ok = read(ids, [&](std::size_t i, std::span<const char> content) -> Result<> {
      for (const auto place : places[ids[i]]) {
        if (content.size() != chunk::chunk_length(map.disk_bytes(), place)) {
          return fail(ErrorCode::corrupt, "chunk " + ids[i].hex() + " has another length than its place");
        }
        auto put = sys::pwrite_all(fd, {content.data(), content.size()}, place * chunk::kChunkBytes);
        if (!put) return put;
        done += content.size();
      }
      return {};
    });
    ids.clear();
    places.clear();
    if (on_bytes) on_bytes(done, total);
    return ok;
  };
  if (on_bytes) on_bytes(0, total);
  for (const auto& [index, group] : map.groups()) {
    for (std::uint32_t i = 0; i < chunk::kGroupChunks; ++i) {
      if (group.chunks[i].is_hole()) continue;
      auto& where = places[group.chunks[i]];
      if (where.empty()) ids.push_back(group.chunks[i]);
      where.push_back(std::uint64_t{index} * chunk::kGroupChunks + i);
    }
    if (ids.size() + chunk::kGroupChunks <= kWindow) continue;
    if (auto ok = flush(); !ok) return ok;
  }
  return ids.empty() ? Result<>{} : flush();
}

Result<> check_room(const std::filesystem::path& folder, std::uint64_t bytes) {
  auto space = sys::disk_space(folder);
  if (!space) return fail(space.error());
  if (space->free_bytes >= bytes + kReserveBytes) return {};
  return fail(ErrorCode::exhausted, "a database disk needs " + to_string(Bytes{bytes}) + " in " +
                                        folder.string() + ", but only " +
                                        to_string(Bytes{space->free_bytes}) + " are free");
}

}  // namespace

Result<> fill_disk(transfer::ChunkSource& chunks, const DiskSource& source, const std::string& node,
                   const std::filesystem::path& file,
                   const std::function<void(std::uint64_t done, std::uint64_t total)>& on_bytes,
                   std::stop_token stop) {
  Fill fill(chunks, source, node, std::move(stop));
  auto map = fill.map();
  if (!map) return fail(map.error());
  const std::filesystem::path part = file.string() + ".part";
  auto fd = sys::open_file(part, O_RDWR | O_CREAT | O_TRUNC, 0600);
  if (!fd) return fail(fd.error());
  if (auto room = check_room(file.parent_path(), map->data_bytes()); !room) return room;
  if (auto written = fill.write(*map, fd->get(), on_bytes); !written) return written;
  const auto length = (source.disk_bytes + kSector - 1) / kSector * kSector;
  if (::ftruncate(fd->get(), static_cast<off_t>(length)) != 0 || ::fdatasync(fd->get()) != 0) {
    return fail(errno_error("finish " + part.string(), errno));
  }
  // Never over one that is there: its bytes exist nowhere else.
  if (::renameat2(AT_FDCWD, part.c_str(), AT_FDCWD, file.c_str(), RENAME_NOREPLACE) != 0) {
    return fail(errno_error("rename " + part.string(), errno));
  }
  return sys::sync_path(file.parent_path());
}

}  // namespace educloud::cc
