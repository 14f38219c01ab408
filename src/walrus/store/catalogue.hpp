#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "common/base/result.hpp"
#include "common/chunk/chunk_store.hpp"
#include "common/chunk/manifest.hpp"

namespace educloud::walrus {

/// Where the chunks of a walrus with this prefix are: "<prefix>/chunks".
std::filesystem::path chunk_folder(const std::filesystem::path& prefix);

/// A version's directory as it lies on disk, whether or not what is in it can be read. VersionStore::list()
/// leaves out what is broken; whoever removes chunks or looks for damage must not.
struct VersionFolder {
  std::string imgid;
  int version = 0;
  std::filesystem::path folder;
  bool is_older_format = false;  ///< `machine` instead of `manifest`: from before images were chunked
  /// "IMG01234567/3".
  std::string name() const;
};

/// All of them below `prefix`, by image and number. Works beside a running walrus.
/// Errors: internal, permission_denied (a directory cannot be read).
Result<std::vector<VersionFolder>> version_folders(const std::filesystem::path& prefix);

/// Decoded and proven against the digest in info.json. Errors: not_found (removed meanwhile), corrupt.
Result<chunk::Manifest> read_manifest(const VersionFolder& version);

/// One group, out of the store and proven. Errors: not_found, corrupt.
Result<chunk::Group> read_group(chunk::ChunkStore& chunks, std::uint64_t disk_bytes,
                                const chunk::GroupRef& ref);

}  // namespace educloud::walrus
