#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "common/base/clock.hpp"
#include "common/chunk/manifest.hpp"
#include "common/http/client.hpp"
#include "common/http/message.hpp"
#include "common/image/version_store.hpp"
#include "common/transfer/chunk_routes.hpp"
#include "nc/domain/vm_spec.hpp"

namespace educloud::nc {

struct CacheOptions {
  http::Url cc;
  http::ClientOptions client = {};
  std::string host;                               ///< this node's name
  std::string node_key;                           ///< what the grants of neighbours' requests are signed with
  std::string advertise_url;                      ///< where neighbours reach this node's data port
  int connections = 4;                            ///< to the cc, per fill
  int max_fills = 2;                              ///< at once, the best priority first
  bool peers = true;                              ///< ask neighbours and serve them
  std::uint64_t frame_cache_bytes = 64ull << 20;  ///< recently received frames kept for neighbours
  int max_layers = 3;                       ///< a version on more qcow2 layers is flattened in the background
  std::chrono::seconds stall_timeout{120};  ///< without any new chunk a fill gives up
};

/// What to have. `digest` is what clc says; nothing else is believed.
struct FillRequest {
  std::string imgid;
  int version = 0;
  chunk::ChunkId digest;
  std::uint64_t data_bytes = 0;  ///< as clc says, for room and progress; 0: unknown
  std::string grant;             ///< GET over version_path
  transfer::Priority priority = transfer::Priority::user;
};

/// Bytes of the guest's disk that are here and proven, of those that this fill has to fetch.
using OnFilled = std::function<void(std::uint64_t done, std::uint64_t total)>;

/// The versions on this node, as files QEMU opens: `images/<imgid>/versions/<n>/machine`, a sparse raw disk,
/// or a qcow2 delta on an older version (which then stays as long as it is stood on). Thread-safe.
///
/// A fill takes what another local version has in common from the disk (reflink where the file system can,
/// else by standing on it), the rest from neighbours and the cc; every chunk is proven by its digest before
/// it is marked; marks are journalled after fdatasync, so a fill that was killed goes on where it was.
/// Nothing is visible before all of it is proven and synced.
class NodeCache {
 public:
  /// `store`: payload machine + companion manifest; outlives this.
  NodeCache(CacheOptions options, image::VersionStore& store, const Clock& clock);
  ~NodeCache();
  NodeCache(const NodeCache&) = delete;
  NodeCache& operator=(const NodeCache&) = delete;

  /// Blocks until the version is here. Several callers for one version share one fill (the best priority
  /// counts). Errors: corrupt, permission_denied, not_found, exhausted, timeout, cancelled, unavailable.
  Result<> fill(const FillRequest& request, const OnFilled& on_filled, std::stop_token stop);

  /// A version that may still be arriving, for reading now; must not outlive this. Starts the fill in the
  /// background if it is not here; reads wait for their chunks and move them to the front of the line.
  class Reader {
   public:
    virtual ~Reader() = default;
    virtual std::uint64_t disk_bytes() const = 0;
    /// Errors: what ended the fill; cancelled; timeout.
    virtual Result<> read(std::uint64_t offset, std::span<char> out, std::stop_token stop) = 0;
    /// All of it is here (then reads come from the published file).
    virtual bool is_complete() const = 0;
  };
  Result<std::shared_ptr<Reader>> open_lazily(const FillRequest& request, std::stop_token stop);

  /// The files of a version that is here, top first, as QEMU stacks them. Errors: not_found.
  Result<std::vector<DiskLayer>> layers(const std::string& imgid, int version);
  /// What a version consists of. Errors: not_found, corrupt.
  Result<chunk::DiskMap> map(const std::string& imgid, int version);

  /// Versions that VMs stand on; they are never removed nor flattened away under them. Called whenever that
  /// changes.
  void set_in_use(std::set<std::pair<std::string, int>> versions);
  /// Removes versions not in use and not stood on, least recently used first, until `wanted` bytes are free
  /// or none is left.
  void make_room(std::uint64_t wanted);

  /// What neighbours are served from: chunks:fetch from fills in progress and from complete versions. null if
  /// !peers.
  transfer::ChunkSource* source();
  /// Ends fills (they go on at the next start) and background work. Idempotent.
  void stop();

  struct Impl;

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace educloud::nc
