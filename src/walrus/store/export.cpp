#include "walrus/store/export.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <mutex>
#include <optional>
#include <thread>
#include <unordered_set>

#include "common/base/ids.hpp"
#include "common/base/random.hpp"
#include "common/image/convert.hpp"
#include "common/sys/file.hpp"
#include "walrus/store/catalogue.hpp"

namespace educloud::walrus {
namespace fs = std::filesystem;
namespace {

using chunk::ChunkId;

constexpr unsigned kThreads = 2;

/// A file under a name of its own until it is complete.
class Unfinished {
 public:
  Unfinished(const fs::path& output, const std::string& suffix)
      : path_(output.parent_path() / ("." + output.filename().string() + "." + random_hex(6) + suffix)) {}
  Unfinished(const Unfinished&) = delete;
  Unfinished& operator=(const Unfinished&) = delete;
  ~Unfinished() {
    std::error_code ignored;
    fs::remove(path_, ignored);
  }
  const fs::path& path() const { return path_; }
  Result<> become(const fs::path& output) {
    if (auto ok = sys::sync_path(path_); !ok) return ok;
    if (::renameat2(AT_FDCWD, path_.c_str(), AT_FDCWD, output.c_str(), RENAME_NOREPLACE) != 0) {
      if (errno == EEXIST) return fail(ErrorCode::conflict, output.string() + " exists already");
      return fail(errno_error("rename to " + output.string(), errno));
    }
    return sys::sync_path(output.parent_path());
  }

 private:
  const fs::path path_;
};

/// Writes the chunks of one version; several threads take groups in turn.
class Writer {
 public:
  Writer(chunk::ChunkStore& chunks, const chunk::Manifest& manifest, int fd, const image::OnBytes& on_bytes,
         std::stop_token stop)
      : chunks_(chunks),
        manifest_(manifest),
        fd_(fd),
        meter_(on_bytes, manifest.disk_bytes),
        stop_(std::move(stop)) {}

  Result<> run() {
    {
      std::vector<std::jthread> threads;
      for (unsigned i = 0; i < kThreads; ++i) threads.emplace_back([this] { work(); });
    }
    if (error_) return fail(*error_);
    meter_.at(manifest_.disk_bytes);
    return {};
  }

 private:
  void work() {
    while (true) {
      const std::size_t mine = next_++;
      if (mine >= manifest_.groups.size()) return;
      auto done = stop_.stop_requested() ? Result<>(fail(ErrorCode::cancelled, "the export was stopped"))
                                         : write_group(manifest_.groups[mine]);
      const std::lock_guard lock(mutex_);
      if (!done && !error_) error_ = done.error();
      if (error_) return;
      meter_.at(std::min(manifest_.disk_bytes, manifest_.groups[mine].index * chunk::kGroupBytes));
    }
  }

  Result<> write_group(const chunk::GroupRef& ref) {
    auto group = read_group(chunks_, manifest_.disk_bytes, ref);
    if (!group) return fail(group.error());
    std::vector<ChunkId> ids;
    std::vector<std::uint64_t> places;
    for (std::uint32_t i = 0; i < chunk::kGroupChunks; ++i) {
      if (group->chunks[i].is_hole()) continue;
      ids.push_back(group->chunks[i]);
      places.push_back(std::uint64_t{ref.index} * chunk::kGroupChunks + i);
    }
    auto found = chunks_.find(ids);
    if (!found) return fail(found.error());
    for (std::size_t i = 0; i < ids.size(); ++i) {
      if (!(*found)[i]) return fail(ErrorCode::not_found, "chunk " + ids[i].hex() + " is not in the store");
      if (auto ok = write_chunk(ids[i], places[i], *(*found)[i]); !ok) return ok;
    }
    return {};
  }

  Result<> write_chunk(const ChunkId& id, std::uint64_t place, const chunk::FrameSlice& slice) {
    thread_local chunk::FrameDecoder decoder;
    thread_local std::string raw(chunk::kChunkBytes, '\0');
    auto frame = chunk::load(slice);
    if (!frame) return fail(frame.error());
    if (frame->header.id != id ||
        frame->header.raw_bytes != chunk::chunk_length(manifest_.disk_bytes, place)) {
      return fail(ErrorCode::corrupt, "the store has something else for chunk " + id.hex());
    }
    if (auto ok = decoder.decode(frame->header, frame->stored, raw); !ok) return ok;
    return sys::pwrite_all(fd_, std::string_view(raw).substr(0, frame->header.raw_bytes),
                           place * chunk::kChunkBytes);
  }

  chunk::ChunkStore& chunks_;
  const chunk::Manifest& manifest_;
  const int fd_;
  std::mutex mutex_;
  image::ProgressMeter meter_;
  const std::stop_token stop_;
  std::atomic<std::size_t> next_ = 0;
  std::optional<Error> error_;
};

Result<VersionFolder> choose(const ExportRequest& request) {
  if (auto id = ImageId::parse(request.imgid); !id) return fail(id.error());
  auto all = version_folders(request.prefix);
  if (!all) return fail(all.error());
  int wanted = request.version;
  if (wanted == 0) {
    std::error_code error;
    const auto link = fs::read_symlink(request.prefix / "images" / request.imgid / "manifest", error);
    wanted = error ? 0 : std::atoi(link.parent_path().filename().c_str());
  }
  for (auto& one : *all) {
    if (one.imgid != request.imgid || one.version != wanted) continue;
    if (!one.is_older_format) return std::move(one);
    return fail(ErrorCode::invalid_argument,
                one.name() + " is of an older format: it is the file " + (one.folder / "machine").string());
  }
  return fail(ErrorCode::not_found, "image " + request.imgid + " has no version " +
                                        (wanted == 0 ? "in use" : std::to_string(wanted)) + " in " +
                                        request.prefix.string());
}

Result<> write_raw(chunk::ChunkStore& chunks, const chunk::Manifest& manifest, const fs::path& path,
                   const image::OnBytes& on_bytes, std::stop_token stop) {
  auto file = sys::open_file(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
  if (!file) return fail(file.error());
  if (::ftruncate(file->get(), static_cast<off_t>(manifest.disk_bytes)) != 0) {
    return fail(errno_error("make " + path.string(), errno));
  }
  return Writer(chunks, manifest, file->get(), on_bytes, std::move(stop)).run();
}

/// Adds the frames of `ids` to the version's sum, and to the store's those not counted yet.
void count_frames(std::span<const ChunkId> ids, std::span<const std::optional<chunk::FrameSlice>> slices,
                  std::unordered_set<ChunkId, chunk::ChunkIdHash>& seen, VersionFigures& one,
                  StoreFigures& all) {
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (!slices[i]) continue;
    one.stored_bytes += slices[i]->length;
    if (!seen.insert(ids[i]).second) continue;
    all.stored_bytes += slices[i]->length;
    all.unique_bytes += slices[i]->raw_bytes;
  }
}

}  // namespace

Result<ExportReport> export_version(const ExportRequest& request, std::stop_token stop) {
  if (request.format != image::Format::raw && request.format != image::Format::qcow2) {
    return fail(ErrorCode::invalid_argument, "an export is raw or qcow2", "format");
  }
  std::error_code error;
  const auto output = fs::absolute(request.output, error);
  if (fs::exists(fs::symlink_status(output, error))) {
    return fail(ErrorCode::conflict, output.string() + " exists already");
  }
  auto version = choose(request);
  if (!version) return fail(version.error());
  auto manifest = read_manifest(*version);
  if (!manifest) return fail(manifest.error());
  auto chunks = chunk::ChunkStore::open_read_only(chunk_folder(request.prefix));
  if (!chunks) return fail(chunks.error());
  Unfinished raw(output, ".raw");
  if (auto ok = write_raw(**chunks, *manifest, raw.path(), request.on_bytes, stop); !ok) {
    return fail(ok.error(), version->name());
  }
  if (request.format == image::Format::raw) {
    if (auto ok = raw.become(output); !ok) return fail(ok.error());
  } else {
    Unfinished qcow2(output, ".qcow2");
    if (auto ok = image::raw_to_qcow2(raw.path(), qcow2.path(), {}, stop); !ok) return fail(ok.error());
    if (auto ok = qcow2.become(output); !ok) return fail(ok.error());
  }
  return ExportReport{version->version, manifest->digest().hex(), manifest->disk_bytes, manifest->data_bytes};
}

Result<StoreFigures> store_figures(const fs::path& prefix, const std::string& imgid) {
  auto versions = version_folders(prefix);
  if (!versions) return fail(versions.error());
  auto chunks = chunk::ChunkStore::open_read_only(chunk_folder(prefix));
  if (!chunks) return fail(chunks.error());
  StoreFigures all;
  std::unordered_set<ChunkId, chunk::ChunkIdHash> seen;
  for (const auto& version : *versions) {
    if (version.is_older_format || (!imgid.empty() && version.imgid != imgid)) continue;
    auto manifest = read_manifest(version);
    if (!manifest) return fail(manifest.error());
    VersionFigures one{version.imgid, version.version, manifest->disk_bytes, manifest->data_bytes, 0};
    for (const auto& ref : manifest->groups) {
      auto group = read_group(**chunks, manifest->disk_bytes, ref);
      if (!group) return fail(group.error(), version.name());
      std::vector<ChunkId> ids{ref.id};
      for (const auto& id : group->chunks) {
        if (!id.is_hole()) ids.push_back(id);
      }
      auto found = (*chunks)->find(ids);
      if (!found) return fail(found.error());
      count_frames(ids, *found, seen, one, all);
    }
    all.data_bytes += one.data_bytes;
    all.versions.push_back(std::move(one));
  }
  auto stats = (*chunks)->stats();
  if (!stats) return fail(stats.error());
  all.disk_bytes = stats->disk_bytes;
  return all;
}

}  // namespace educloud::walrus
