#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cc/relay/upstream.hpp"
#include "cc/relay/walrus_clients.hpp"
#include "common/chunk/chunk_store.hpp"
#include "common/image/version_store.hpp"
#include "common/transfer/chunk_routes.hpp"

namespace educloud::cc {

/// Manifests that passed through here; versions never change, so they are kept until there are too many.
/// Thread-safe.
class ManifestCache {
 public:
  static constexpr std::size_t kMaxVersions = 2000;

  /// `versions`: payload "manifest", is_cache.
  explicit ManifestCache(image::VersionStore& versions) : versions_(versions) {}

  /// Encoded. Errors: not_found (here).
  Result<std::string> find(const std::string& imgid, int version);
  /// Errors: corrupt (no manifest), conflict (another digest is known for the version), exhausted, internal.
  Result<> put(const std::string& imgid, int version, const std::string& encoded, const std::string& parent);
  /// Digest of the version, 64 hex; "" if it is not here.
  std::string digest(const std::string& imgid, int version) const;
  std::vector<image::VersionInfo> list() const;

 private:
  void make_room();
  image::VersionStore& versions_;
};

/// What nodes read: manifests and chunks, from the cache or, while they arrive, from walrus. Thread-safe.
class ChunkRelay : public transfer::ChunkSource {
 public:
  /// Walrus is asked again for a manifest until then.
  static constexpr std::chrono::seconds kManifestDeadline{20};

  ChunkRelay(ManifestCache& manifests, chunk::ChunkStore& store, Upstream& upstream, WalrusClients& walrus);
  ~ChunkRelay() override;

  Result<std::string> manifest(const transfer::ChunkCaller& caller, std::stop_token stop) override;
  Result<std::unique_ptr<Reading>> read(const transfer::ChunkCaller& caller, std::vector<chunk::ChunkId> ids,
                                        std::stop_token stop) override;

 private:
  struct Asking;  ///< one manifest on its way

  Result<std::string> ask_walrus(const transfer::ChunkCaller& caller, const std::stop_token& stop);
  Result<std::string> wait_for(Asking& asking, const std::stop_token& stop);

  ManifestCache& manifests_;
  chunk::ChunkStore& store_;
  Upstream& upstream_;
  WalrusClients& walrus_;
  std::mutex mutex_;
  std::map<VersionKey, std::shared_ptr<Asking>> asking_;
};

}  // namespace educloud::cc
