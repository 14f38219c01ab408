#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <set>
#include <stop_token>
#include <string>
#include <vector>

#include "common/base/result.hpp"
#include "common/image/version_store.hpp"
#include "common/msg/host_status.hpp"
#include "nc/cache/node_cache.hpp"
#include "nc/cache/submit.hpp"
#include "nc/domain/vm_spec.hpp"

namespace educloud::nc {

/// `total` 0: not known.
using OnCopied = std::function<void(std::uint64_t done, std::uint64_t total)>;

/// (imgid, version) each.
using Versions = std::set<std::pair<std::string, int>>;

/// A version that is here: its files, top first, and the size of the guest's disk in them.
struct BaseDisk {
  std::vector<DiskLayer> layers;
  std::uint64_t disk_bytes = 0;
};

/// A changed disk, to become a version.
struct SubmitJob {
  std::string target_imgid;
  int target_version = 0;
  std::string grant;
  std::string cmdid;
  std::string if_current;
  std::string parent_imgid;  ///< what it was made from, which is here
  int parent_version = 0;
  std::vector<std::filesystem::path> changed;  ///< qcow2 files on top of the parent's, top first
};

/// Everything this node does with image files; the seam that unit tests replace. All calls block, stop soon
/// after `stop` is requested (cancelled), and leave nothing half behind.
class ImageTools {
 public:
  virtual ~ImageTools() = default;

  /// Makes the version present here. Present already: returns at once.
  virtual Result<> fetch(const FillRequest& request, const OnCopied& progress, std::stop_token stop) = 0;
  /// A version for reading while it arrives; see NodeCache::open_lazily.
  virtual Result<std::shared_ptr<NodeCache::Reader>> open_lazily(const FillRequest& request,
                                                                 std::stop_token stop) = 0;
  /// Errors: not_found (not here, or not yet all of it).
  virtual Result<BaseDisk> base(const std::string& imgid, int version) = 0;
  /// An empty qcow2 with 64 KiB clusters on top of `base`, for a disk of `disk_bytes`; durable. Never opens
  /// the base. Errors: conflict (`overlay` exists).
  virtual Result<> make_overlay(const DiskLayer& base, std::uint64_t disk_bytes,
                                const std::filesystem::path& overlay) = 0;
  /// `progress`: of what the changed files hold.
  virtual Result<SubmitReport> submit(const SubmitJob& job, const OnCopied& progress,
                                      std::stop_token stop) = 0;
  virtual Result<std::uint64_t> free_disk_bytes() = 0;
  /// What VMs stand on or will: never removed until it is told otherwise.
  virtual void set_in_use(const Versions& versions) = 0;
  /// Removes cached versions not in use, least recently used first, until `wanted` bytes are free or none is
  /// left.
  virtual void make_room(std::uint64_t wanted) = 0;
  virtual std::vector<msg::CachedImage> cached() = 0;
  virtual std::uint64_t cached_bytes() = 0;
};

struct NodeImageOptions {
  http::Url cc;
  http::ClientOptions client = {};
  int connections = 4;  ///< of a submit
};
/// The real ones, over the node's cache. `store` and `cache` must outlive it.
std::unique_ptr<ImageTools> make_image_tools(NodeImageOptions options, image::VersionStore& store,
                                             NodeCache& cache);

}  // namespace educloud::nc
