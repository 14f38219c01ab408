#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <stop_token>
#include <string>

#include "common/chunk/chunk_store.hpp"
#include "common/chunk/manifest.hpp"
#include "common/image/version_store.hpp"
#include "common/transfer/receipt.hpp"

namespace educloud::walrus {

/// A disk whose chunks are (said to be) in the store, to become a version.
struct PublishRequest {
  std::string imgid;
  int version = 0;
  std::string manifest;    ///< encoded
  std::string parent;      ///< "<imgid>/<version>" or empty
  std::string if_current;  ///< publish only if this is the version in use; empty: whatever is
  std::string cmdid;
  /// Into use, whatever is in use now; else, and when it is repeated, only if the number is higher.
  bool take_into_use = false;
};

/// Makes versions: the only place that does. What is published is complete: every group and every chunk of
/// the manifest is in the store, has the length its place wants, and all of it is durable. Thread-safe; one
/// at a time looks at the version in use and replaces it.
class Publisher {
 public:
  Publisher(image::VersionStore& versions, chunk::ChunkStore& chunks, std::uint64_t max_disk_bytes)
      : versions_(versions), chunks_(chunks), max_disk_bytes_(max_disk_bytes) {}

  /// Published already with the same digest: success. Errors: invalid_argument (an id, a parent), too_large
  /// (disk), corrupt (manifest, a group or a chunk missing or wrong, sizes that lie), conflict (another
  /// version is in use: both named; the number is taken), exhausted, cancelled, internal.
  Result<transfer::Receipt> publish(const PublishRequest& request, std::stop_token stop);
  /// Receipt of a published version. Errors: not_found.
  Result<transfer::Receipt> receipt_of(const std::string& imgid, int version, const std::string& cmdid) const;

 private:
  Result<> check_complete(const chunk::Manifest& manifest, const std::string& parent, std::stop_token stop);
  Result<> check_chunks(const chunk::Manifest& manifest, std::span<const std::uint64_t> places,
                        std::span<const chunk::ChunkId> ids);
  Result<> check_current(const PublishRequest& request) const;
  Result<> write(const PublishRequest& request, const chunk::Manifest& manifest, const std::string& digest);
  Result<> use(const PublishRequest& request, bool is_repeat);

  image::VersionStore& versions_;
  chunk::ChunkStore& chunks_;
  const std::uint64_t max_disk_bytes_;
  std::mutex mutex_;  ///< from the look at the version in use until it is replaced
};

/// What a disk must be like, whoever made it. Errors: corrupt (no bytes, not a multiple of 512), too_large.
Result<> check_disk_size(std::uint64_t disk_bytes, std::uint64_t max_disk_bytes);

}  // namespace educloud::walrus
