#include "walrus/store/importer.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include "common/base/bytes.hpp"
#include "common/image/convert.hpp"
#include "common/image/digest.hpp"
#include "common/obs/log.hpp"
#include "common/obs/metrics.hpp"
#include "common/sys/file.hpp"

namespace educloud::walrus {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kSectorBytes = 512;

std::string name_of(const std::string& imgid, int version) {
  return "image " + imgid + " version " + std::to_string(version);
}

/// What `file` occupies on disk, holes not counted.
std::uint64_t allocated_bytes(const fs::path& file) {
  struct stat status {};
  return ::stat(file.c_str(), &status) == 0 ? static_cast<std::uint64_t>(status.st_blocks) * 512 : 0;
}

/// Removes a staging file when it is not needed any more.
class Temporary {
 public:
  explicit Temporary(fs::path path) : path_(std::move(path)) {}
  Temporary(const Temporary&) = delete;
  Temporary& operator=(const Temporary&) = delete;
  ~Temporary() {
    std::error_code ignored;
    if (!path_.empty()) fs::remove(path_, ignored);
  }

 private:
  const fs::path path_;
};

}  // namespace

Result<> Importer::check_digest(const ImportJob& job, std::stop_token stop) const {
  if (job.digest.empty()) return {};
  const auto on_bytes = [&](std::uint64_t done, std::uint64_t total) {
    job.progress({"checking the upload", done, total});
  };
  auto digest = image::sha256_file(job.data, on_bytes, std::move(stop));
  if (!digest) return fail(digest.error());
  if (*digest == job.digest) return {};
  return fail(ErrorCode::corrupt, "the upload of " + name_of(job.imgid, job.version) +
                                      " arrived with digest " + *digest + " instead of " + job.digest +
                                      "; upload it again");
}

Result<> Importer::check_room(const ImportJob& job) const {
  auto space = sys::disk_space(store_.prefix());
  if (!space) return fail(space.error());
  // A converted image has about the blocks of its source; compressed sources may need more and then fail
  // cleanly.
  const std::uint64_t need = allocated_bytes(job.data) + options_.reserve_bytes;
  if (space->free_bytes >= need) return {};
  return fail(ErrorCode::exhausted, "converting " + name_of(job.imgid, job.version) + " needs " +
                                        to_string(Bytes{need}) + ", the disk of " + store_.prefix().string() +
                                        " has " + to_string(Bytes{space->free_bytes}) +
                                        " free: prune old versions or enlarge it");
}

/// To a raw file in staging, which is the caller's to remove.
Result<fs::path> Importer::convert(const ImportJob& job, const image::ImageHeader& header,
                                   std::stop_token stop) const {
  if (auto room = check_room(job); !room) return fail(room.error());
  auto output = store_.staging("import-" + job.name + ".raw");
  auto workspace = store_.staging("import-" + job.name + ".work");
  if (!output) return fail(output.error());
  if (!workspace) return fail(workspace.error());
  // What a killed run left.
  std::error_code ignored;
  fs::remove_all(*workspace, ignored);
  fs::remove(*output, ignored);
  image::ConvertRequest request;
  request.input = job.data;
  request.input_format = header.format;
  request.output = *output;
  request.workspace = *workspace;
  request.user = options_.convert_user;
  request.isolation =
      options_.convert_user.empty() ? image::Isolation::best_effort : image::Isolation::required;
  // A small upload may unpack to a disk without end: it must not take what others need.
  std::stop_source full;
  const std::stop_callback pass_on(stop, [&full] { full.request_stop(); });
  bool is_full = false;
  const std::string prompt = "unpacking " + std::string(to_string(header.format));
  request.on_percent = [&](int done) {
    const auto part = static_cast<std::uint64_t>(std::clamp(done, 0, 100));
    job.progress({prompt, header.virtual_size_bytes / 100 * part, header.virtual_size_bytes});
    auto space = sys::disk_space(store_.prefix());
    if (!space || space->free_bytes >= options_.reserve_bytes) return;
    is_full = true;
    full.request_stop();
  };
  job.progress({prompt, 0, header.virtual_size_bytes});
  auto converted = image::convert_to_raw(request, header.virtual_size_bytes, full.get_token());
  if (!converted && (is_full || converted.error().code == ErrorCode::exhausted)) {
    return fail(ErrorCode::exhausted, "the disk of " + store_.prefix().string() +
                                          " has no room for the disk in " + name_of(job.imgid, job.version) +
                                          ", prune old versions or enlarge it");
  }
  if (!converted) return fail(converted.error());
  if (!converted->isolated)
    obs::warn("import.not_isolated", {{"imgid", job.imgid}, {"version", job.version}});
  return *output;
}

Result<chunk::Manifest> Importer::cut(const ImportJob& job, const fs::path& raw, std::uint64_t disk_bytes,
                                      std::stop_token stop) {
  IngestRequest request;
  request.raw = raw;
  request.disk_bytes = disk_bytes;
  request.reserve_bytes = options_.reserve_bytes;
  request.store_disk = store_.prefix();
  request.in_progress = &in_progress_;
  request.on_bytes = [&](std::uint64_t done, std::uint64_t total) { job.progress({"storing", done, total}); };
  const auto begun = std::chrono::steady_clock::now();
  auto done = ingest(chunks_, request, std::move(stop));
  if (!done) return fail(done.error());
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begun;
  obs::metrics().observe("educloud_walrus_ingest_seconds", "Cutting a disk into chunks", took.count());
  obs::info("import.stored", {{"imgid", job.imgid},
                              {"version", job.version},
                              {"read_bytes", done->read_bytes},
                              {"new_chunks", done->new_chunks},
                              {"new_bytes", done->new_bytes},
                              {"ms", static_cast<std::int64_t>(took.count() * 1000)}});
  return done->map.manifest();
}

Result<transfer::Receipt> Importer::run(const ImportJob& job, std::stop_token stop) {
  auto have = store_.find(job.imgid, job.version);
  if (!have && have.error().code != ErrorCode::not_found) return fail(have.error());
  PublishRequest publication;
  publication.imgid = job.imgid;
  publication.version = job.version;
  publication.parent = job.parent;
  publication.cmdid = job.cmdid;
  if (have) {
    if (job.note.empty() || have->digest != job.note) {
      return fail(ErrorCode::conflict, name_of(job.imgid, job.version) +
                                           " is published already with digest " + have->digest +
                                           "; the upload was thrown away");
    }
    // Ours from before a crash: only its end is missing.
    auto text =
        sys::read_file(store_.file_path(job.imgid, job.version, "manifest"), chunk::kMaxManifestBytes);
    if (!text) return fail(text.error());
    publication.manifest = std::move(*text);
    return publisher_.publish(publication, stop);
  }
  std::optional<image::Format> declared;
  if (!job.format.empty()) {
    auto format = image::parse_format(job.format);
    if (!format) return fail(format.error());
    declared = *format;
  }
  auto header =
      image::inspect_file(job.data, {options_.max_image_bytes, options_.max_virtual_bytes}, declared);
  if (!header) return fail(header.error(), "the uploaded file is refused");
  if (auto ok = check_digest(job, stop); !ok) return fail(ok.error());

  // A disk that ends inside a sector has zeros in the rest of it, for QEMU too.
  const std::uint64_t disk_bytes =
      (header->virtual_size_bytes + kSectorBytes - 1) / kSectorBytes * kSectorBytes;
  if (auto ok = check_disk_size(disk_bytes, options_.max_virtual_bytes); !ok) return fail(ok.error());
  Result<fs::path> raw = job.data;
  if (header->format != image::Format::raw) raw = convert(job, *header, stop);
  if (!raw) return fail(raw.error());
  const Temporary converted(*raw == job.data ? fs::path() : *raw);
  auto manifest = cut(job, *raw, disk_bytes, stop);
  if (!manifest) return fail(manifest.error());
  if (stop.stop_requested()) return fail(ErrorCode::cancelled, "stopped");
  // From here on a restart recognises the version as ours by its digest.
  if (auto ok = job.save_note(manifest->digest().hex()); !ok) return fail(ok.error());
  job.progress({"publishing", 0, 0});
  publication.manifest = manifest->encode();
  publication.take_into_use = true;
  return publisher_.publish(publication, stop);
}

}  // namespace educloud::walrus
