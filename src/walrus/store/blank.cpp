#include "walrus/store/blank.hpp"

#include "common/sys/file.hpp"
#include "common/sys/process.hpp"

namespace educloud::walrus {
namespace {

namespace fs = std::filesystem;

/// A sparse file with an empty file system. The same bytes at each try: what a killed run has published is
/// recognised.
Result<> format(const fs::path& file, const std::string& imgid, std::uint64_t disk_bytes) {
  std::error_code error;
  fs::remove(file, error);
  if (auto ok = sys::write_file_atomically(file, "", 0600); !ok) return ok;
  fs::resize_file(file, disk_bytes, error);
  if (error)
    return fail(errno_error("make a disk of " + std::to_string(disk_bytes) + " bytes", error.value()));
  // A UUID of the image: two servers' disks in one guest must not be mistaken for each other.
  const std::string digits = imgid.substr(3);
  const std::string uuid = digits + "-0000-4000-8000-0000" + digits;
  sys::ProcessOptions options;
  // With discard it knows that the file is zeros and says so; else each guest would write its inode tables
  // again, synced through iSCSI, behind the user's first rows.
  options.argv = {"mke2fs",
                  "-q",
                  "-F",
                  "-t",
                  "ext4",
                  "-L",
                  "database",
                  "-U",
                  uuid,
                  "-E",
                  "lazy_itable_init=1,discard,hash_seed=" + uuid,
                  file.string()};
  options.environment = {"E2FSPROGS_FAKE_TIME=1700000000"};
  options.timeout = std::chrono::minutes{2};
  auto made = sys::run_checked(options);
  if (!made) return fail(made.error(), "make a file system (package e2fsprogs)");
  return {};
}

}  // namespace

Result<transfer::Receipt> BlankDisks::make(const std::string& imgid, int version, const std::string& cmdid,
                                           std::uint64_t disk_bytes) {
  ImportJob job;
  job.imgid = imgid;
  job.version = version;
  job.cmdid = cmdid;
  job.name = "blank-" + imgid + "-" + std::to_string(version);
  job.save_note = [](const std::string&) -> Result<> { return {}; };
  job.progress = [](const transfer::Progress&) {};
  if (!template_.empty()) {
    job.data = template_;
    return importer_.run(job, {});
  }
  auto file = store_.staging(job.name + ".raw");
  if (!file) return fail(file.error());
  job.data = *file;
  job.format = "raw";
  auto ok = format(*file, imgid, disk_bytes);
  auto receipt = ok ? importer_.run(job, {}) : Result<transfer::Receipt>(fail(ok.error()));
  std::error_code ignored;
  fs::remove(*file, ignored);
  return receipt;
}

}  // namespace educloud::walrus
