#pragma once

#include <cstdint>
#include <filesystem>
#include <stop_token>
#include <string>
#include <vector>

#include "common/base/result.hpp"
#include "common/image/inspector.hpp"
#include "common/image/progress.hpp"

namespace educloud::walrus {

/// A version as an ordinary file again.
struct ExportRequest {
  std::filesystem::path prefix;  ///< of walrus
  std::string imgid;
  int version = 0;               ///< 0: the one in use
  std::filesystem::path output;  ///< must not exist; made under another name beside it and renamed
  image::Format format = image::Format::raw;  ///< raw (sparse) or qcow2
  image::OnBytes on_bytes = {};               ///< of the disk's length
};

struct ExportReport {
  int version = 0;
  std::string digest;            ///< of the manifest, hex
  std::uint64_t disk_bytes = 0;  ///< of the guest's disk
  std::uint64_t data_bytes = 0;  ///< of it that is no hole
};

/// Every chunk is proven by SHA-256 on the way. Changes nothing in the store, also beside a running walrus.
/// Errors: not_found (version, or a chunk of it), corrupt (a chunk, named), conflict (`output` exists),
/// invalid_argument (id, format, version of an older format), exhausted, cancelled, internal. After an error
/// nothing is left of the output.
Result<ExportReport> export_version(const ExportRequest& request, std::stop_token stop = {});

/// What the versions need, and what they would need without the store's sharing and compression.
struct VersionFigures {
  std::string imgid;
  int version = 0;
  std::uint64_t disk_bytes = 0;
  std::uint64_t data_bytes = 0;
  std::uint64_t stored_bytes = 0;  ///< frames of its chunks and groups, whoever shares them
};
struct StoreFigures {
  std::vector<VersionFigures> versions;
  std::uint64_t data_bytes = 0;    ///< sum of the versions: as ordinary sparse files
  std::uint64_t unique_bytes = 0;  ///< each chunk once, unpacked
  std::uint64_t stored_bytes = 0;  ///< each chunk once, as it is in the packs
  std::uint64_t disk_bytes = 0;    ///< blocks that packs and index occupy
};
/// For `image compact`. Only reads, also beside a running walrus. `imgid` empty: all images.
/// Errors: not_found, corrupt, internal.
Result<StoreFigures> store_figures(const std::filesystem::path& prefix, const std::string& imgid = "");

}  // namespace educloud::walrus
