#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <stop_token>
#include <string>

#include "common/base/result.hpp"
#include "common/image/version_store.hpp"
#include "common/transfer/progress.hpp"
#include "common/transfer/receipt.hpp"

namespace educloud::walrus {

struct ImporterOptions {
  std::string convert_user;  ///< qemu-img runs as it; empty: as our own user (then we are not root)
  std::uint64_t max_image_bytes = 2ull << 40;
  std::uint64_t max_virtual_bytes = 2ull << 40;
  std::uint64_t reserve_bytes = 256ull << 20;  ///< stays free on the disk
};

/// A received file and what it is to become.
struct ImportJob {
  std::string imgid;
  int version = 0;
  std::string cmdid;
  std::string digest;  ///< the file must have it; empty: not said
  std::string format;  ///< declared by the uploader; empty: as the header says
  std::string parent;
  std::filesystem::path data;
  std::string name;  ///< names this job's staging files; the same after a restart
  std::string note;  ///< what `save_note` kept in an earlier run, or empty
  std::function<Result<>(const std::string&)> save_note;
  transfer::OnProgress progress;
};

/// Digest check, header inspection, conversion to a standalone qcow2 if it is not one, inspection of the
/// result, publication. Everything unfinished is in staging, so a version is there complete or not at all.
/// Running it again after a crash ends in the same version.
class Importer {
 public:
  Importer(image::VersionStore& store, ImporterOptions options)
      : store_(store), options_(std::move(options)) {}

  /// Blocking. Errors: corrupt (digest), invalid_argument (header refused: which rule, which file named in
  /// it), conflict (the number is published with other bytes), exhausted (disk full), timeout, cancelled,
  /// internal.
  Result<transfer::Receipt> run(const ImportJob& job, std::stop_token stop);

  /// Receipt of a published version. Errors: not_found.
  Result<transfer::Receipt> receipt_of(const std::string& imgid, int version, const std::string& cmdid) const;

 private:
  struct Candidate {
    std::filesystem::path file;
    std::uint64_t virtual_size_bytes = 0;
    std::string digest;
  };
  Result<> check_room(const ImportJob& job) const;
  Result<Candidate> convert(const ImportJob& job, std::string_view format, std::stop_token stop) const;
  Result<std::string> hash(const ImportJob& job, const std::filesystem::path& file, std::string prompt,
                           std::stop_token stop) const;
  Result<> take_into_use(const std::string& imgid, int version, bool only_forward);

  image::VersionStore& store_;
  const ImporterOptions options_;
};

}  // namespace educloud::walrus
