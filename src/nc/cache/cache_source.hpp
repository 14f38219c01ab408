#pragma once

#include <chrono>
#include <list>
#include <memory>
#include <mutex>

#include "common/transfer/chunk_routes.hpp"
#include "nc/cache/chunk_index.hpp"
#include "nc/cache/fill_table.hpp"
#include "nc/cache/frame_ring.hpp"
#include "nc/cache/local_versions.hpp"

namespace educloud::nc {

/// What neighbours get: frames that came a moment ago, else chunks read from the file and packed again. The
/// receiver proves them; here only a chunk that is not what it should be any more is held back. A chunk that
/// this node is still fetching is waited for, a few seconds.
class CacheSource : public transfer::ChunkSource {
 public:
  CacheSource(FillTable& table, LocalVersions& local, const FrameRing& ring)
      : table_(table), local_(local), ring_(ring) {}

  Result<std::string> manifest(const transfer::ChunkCaller& caller, std::stop_token stop) override;
  Result<std::unique_ptr<Reading>> read(const transfer::ChunkCaller& caller, std::vector<chunk::ChunkId> ids,
                                        std::stop_token stop) override;
  /// Forgets the maps of versions that nobody asked for lately.
  void trim();

 private:
  class Answer;
  /// A complete version that is being asked for.
  struct Served {
    VersionKey key;
    chunk::DiskMap map;
    ChunkIndex index;
    image::LayeredDisk disk;
    std::chrono::steady_clock::time_point used;
  };
  Result<std::shared_ptr<Served>> serve(const VersionKey& key);

  FillTable& table_;
  LocalVersions& local_;
  const FrameRing& ring_;
  std::mutex mutex_;
  std::list<std::shared_ptr<Served>> served_;  ///< at most kMaxServed, last used first
};

}  // namespace educloud::nc
