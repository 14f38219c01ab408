#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <stop_token>
#include <string>

#include "common/base/result.hpp"
#include "common/image/inspector.hpp"
#include "common/image/version_store.hpp"
#include "common/transfer/progress.hpp"
#include "common/transfer/receipt.hpp"
#include "walrus/store/ingest.hpp"
#include "walrus/store/publish.hpp"

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
  std::string digest;  ///< SHA-256 the file must have; empty: not said
  std::string format;  ///< declared by the uploader; empty: as the header says
  std::string parent;
  std::filesystem::path data;
  std::string name;  ///< names this job's staging files; the same after a restart
  std::string note;  ///< what `save_note` kept in an earlier run, or empty
  std::function<Result<>(const std::string&)> save_note;
  transfer::OnProgress progress;
};

/// Digest check, header inspection, conversion to a sparse raw file if it is not one, chunks, publication.
/// The raw file is in staging and removed again; chunks that no version came to name are swept. Running it
/// again after a crash ends in the same version and compresses only what is not in the store yet.
class Importer {
 public:
  Importer(image::VersionStore& store, chunk::ChunkStore& chunks, Publisher& publisher,
           InProgress& in_progress, ImporterOptions options)
      : store_(store),
        chunks_(chunks),
        publisher_(publisher),
        in_progress_(in_progress),
        options_(std::move(options)) {}

  /// Blocking. Errors: corrupt (digest), invalid_argument (header refused: which rule, which file named in
  /// it), conflict (the number is published with another disk), exhausted (disk full), timeout, cancelled,
  /// internal.
  Result<transfer::Receipt> run(const ImportJob& job, std::stop_token stop);

 private:
  Result<> check_digest(const ImportJob& job, std::stop_token stop) const;
  Result<> check_room(const ImportJob& job) const;
  Result<std::filesystem::path> convert(const ImportJob& job, const image::ImageHeader& header,
                                        std::stop_token stop) const;
  Result<chunk::Manifest> cut(const ImportJob& job, const std::filesystem::path& raw,
                              std::uint64_t disk_bytes, std::stop_token stop);

  image::VersionStore& store_;
  chunk::ChunkStore& chunks_;
  Publisher& publisher_;
  InProgress& in_progress_;
  const ImporterOptions options_;
};

}  // namespace educloud::walrus
