#include "walrus/store/importer.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include "common/base/bytes.hpp"
#include "common/image/convert.hpp"
#include "common/image/digest.hpp"
#include "common/image/inspector.hpp"
#include "common/obs/log.hpp"
#include "common/sys/file.hpp"

namespace educloud::walrus {
namespace {

namespace fs = std::filesystem;

std::string name_of(const std::string& imgid, int version) {
  return "image " + imgid + " version " + std::to_string(version);
}

/// What `file` occupies on disk, holes not counted.
std::uint64_t allocated_bytes(const fs::path& file) {
  struct stat status {};
  return ::stat(file.c_str(), &status) == 0 ? static_cast<std::uint64_t>(status.st_blocks) * 512 : 0;
}

}  // namespace

Result<transfer::Receipt> Importer::receipt_of(const std::string& imgid, int version,
                                               const std::string& cmdid) const {
  auto info = store_.find(imgid, version);
  if (!info) return fail(info.error());
  return transfer::Receipt{imgid,
                           version,
                           info->digest,
                           static_cast<std::int64_t>(info->size_bytes),
                           static_cast<std::int64_t>(info->virtual_size_bytes),
                           info->format,
                           info->parent,
                           cmdid};
}

Result<std::string> Importer::hash(const ImportJob& job, const fs::path& file, std::string prompt,
                                   std::stop_token stop) const {
  return image::sha256_file(
      file,
      [&](std::uint64_t done, std::uint64_t total) {
        job.progress({prompt, done, total});
      },
      std::move(stop));
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

Result<Importer::Candidate> Importer::convert(const ImportJob& job, std::string_view format,
                                              std::stop_token stop) const {
  if (auto room = check_room(job); !room) return fail(room.error());
  auto parsed = image::parse_format(format);
  if (!parsed) return fail(parsed.error());
  auto output = store_.staging("import-" + job.name + ".qcow2");
  auto workspace = store_.staging("import-" + job.name + ".work");
  if (!output) return fail(output.error());
  if (!workspace) return fail(workspace.error());
  // What a killed run left.
  std::error_code ignored;
  fs::remove_all(*workspace, ignored);
  fs::remove(*output, ignored);
  image::ConvertRequest request;
  request.input = job.data;
  request.input_format = *parsed;
  request.output = *output;
  request.workspace = *workspace;
  request.user = options_.convert_user;
  request.isolation =
      options_.convert_user.empty() ? image::Isolation::best_effort : image::Isolation::required;
  request.limits = {options_.max_image_bytes, options_.max_virtual_bytes};
  const std::string prompt = "converting " + std::string(format) + " to qcow2";
  const std::uint64_t total = fs::file_size(job.data, ignored);
  request.on_percent = [&](int done) {
    job.progress({prompt, total / 100 * static_cast<std::uint64_t>(std::clamp(done, 0, 100)), total});
  };
  job.progress({prompt, 0, total});
  auto converted = image::convert_to_qcow2(request, std::move(stop));
  if (!converted && converted.error().code == ErrorCode::exhausted) {
    return fail(converted.error(), "the disk of " + store_.prefix().string() +
                                       " has no room for the converted image, " +
                                       "prune old versions or enlarge it");
  }
  if (!converted) return fail(converted.error());
  if (!converted->isolated)
    obs::warn("import.not_isolated", {{"imgid", job.imgid}, {"version", job.version}});
  return Candidate{*output, converted->header.virtual_size_bytes, {}};
}

Result<> Importer::take_into_use(const std::string& imgid, int version, bool only_forward) {
  if (only_forward) {
    auto current = store_.current(imgid);
    if (!current) return fail(current.error());
    if (*current && **current >= version) return {};
  }
  return store_.set_current(imgid, version);
}

Result<transfer::Receipt> Importer::run(const ImportJob& job, std::stop_token stop) {
  auto have = store_.find(job.imgid, job.version);
  if (have) {
    // Ours from before a crash, or the same bytes once more.
    if (have->digest != job.note && have->digest != job.digest) {
      return fail(ErrorCode::conflict, name_of(job.imgid, job.version) +
                                           " is published already with digest " + have->digest +
                                           "; the upload was thrown away");
    }
    if (auto ok = take_into_use(job.imgid, job.version, true); !ok) return fail(ok.error());
    return receipt_of(job.imgid, job.version, job.cmdid);
  }
  if (have.error().code != ErrorCode::not_found) return fail(have.error());

  std::optional<image::Format> declared;
  if (!job.format.empty()) {
    auto format = image::parse_format(job.format);
    if (!format) return fail(format.error());
    declared = *format;
  }
  auto header =
      image::inspect_file(job.data, {options_.max_image_bytes, options_.max_virtual_bytes}, declared);
  if (!header) return fail(header.error(), "the uploaded file is refused");
  const bool as_it_is = header->format == image::Format::qcow2;
  Candidate candidate{job.data, header->virtual_size_bytes, {}};
  if (!job.digest.empty() || as_it_is) {
    auto digest = hash(job, job.data, "checking the upload", stop);
    if (!digest) return fail(digest.error());
    if (!job.digest.empty() && *digest != job.digest) {
      return fail(ErrorCode::corrupt, "the upload of " + name_of(job.imgid, job.version) +
                                          " arrived with digest " + *digest + " instead of " + job.digest +
                                          "; upload it again");
    }
    candidate.digest = *digest;
  }
  if (!as_it_is) {
    auto converted = convert(job, image::to_string(header->format), stop);
    if (!converted) return fail(converted.error());
    candidate = *converted;
    auto digest = hash(job, candidate.file, "checking the result", stop);
    if (!digest) return fail(digest.error());
    candidate.digest = *digest;
  }
  if (stop.stop_requested()) return fail(ErrorCode::cancelled, "stopped");
  // From here on a restart recognises the version as ours by its digest.
  if (auto ok = job.save_note(candidate.digest); !ok) return fail(ok.error());
  job.progress({"publishing", 0, 0});
  std::error_code error;
  image::VersionInfo info;
  info.image = job.imgid;
  info.version = job.version;
  info.digest = candidate.digest;
  info.size_bytes = fs::file_size(candidate.file, error);
  info.virtual_size_bytes = candidate.virtual_size_bytes;
  info.format = "qcow2";
  info.parent = job.parent;
  if (auto ok = store_.publish(candidate.file, info); !ok) {
    if (!as_it_is) fs::remove(candidate.file, error);
    return fail(ok.error());
  }
  if (auto ok = take_into_use(job.imgid, job.version, false); !ok) return fail(ok.error());
  return receipt_of(job.imgid, job.version, job.cmdid);
}

}  // namespace educloud::walrus
