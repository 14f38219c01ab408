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
#include "common/http/client.hpp"
#include "common/image/version_store.hpp"
#include "common/msg/command.hpp"
#include "common/msg/host_status.hpp"
#include "nc/domain/vm_spec.hpp"

namespace educloud::nc {

/// `total` 0: not known.
using OnCopied = std::function<void(std::uint64_t done, std::uint64_t total)>;

/// (imgid, version) each.
using Versions = std::set<std::pair<std::string, int>>;

/// What to upload.
struct Upload {
  std::string imgid;
  int version = 0;
  std::string grant;
  std::filesystem::path file;
  std::string cmdid;
  std::string digest;
  std::string parent_imgid;
  int parent_version = 0;
};

/// Everything this node does with image files; the seam that unit tests replace. All calls block, stop soon
/// after `stop` is requested (cancelled), and leave nothing half behind.
class ImageTools {
 public:
  virtual ~ImageTools() = default;

  /// Makes the version present here. Present already: returns at once.
  virtual Result<> fetch(const msg::ImageVersion& version, const std::string& grant, const OnCopied& progress,
                         std::stop_token stop) = 0;
  /// File and format of a version that is here. Errors: not_found.
  virtual Result<DiskLayer> base(const std::string& imgid, int version) = 0;
  virtual Result<> clone(const std::filesystem::path& from, const std::filesystem::path& to,
                         const OnCopied& progress, std::stop_token stop) = 0;
  virtual Result<> make_overlay(const DiskLayer& base, const std::filesystem::path& overlay) = 0;
  /// `percent` as qemu-img prints it. `output` must not exist.
  virtual Result<> flatten(const std::filesystem::path& overlay, const DiskLayer& base,
                           const std::filesystem::path& output, const std::function<void(int)>& percent,
                           std::stop_token stop) = 0;
  virtual Result<std::string> digest(const std::filesystem::path& file, const OnCopied& progress,
                                     std::stop_token stop) = 0;
  /// Returns the receipt.
  virtual Result<std::string> upload(const Upload& what, const OnCopied& progress, std::stop_token stop) = 0;
  virtual Result<std::uint64_t> free_disk_bytes() = 0;
  /// Removes cached versions that are not in `keep`, least recently used first, until `wanted` bytes are free
  /// or none is left.
  virtual void make_room(std::uint64_t wanted, const Versions& keep) = 0;
  virtual std::vector<msg::CachedImage> cached() = 0;
  virtual std::uint64_t cached_bytes() = 0;
};

struct NodeImageOptions {
  http::Url cc;
  http::ClientOptions client = {};
};
/// The real ones: common/image and common/transfer. `store` must outlive it.
std::unique_ptr<ImageTools> make_image_tools(NodeImageOptions options, image::VersionStore& store);

}  // namespace educloud::nc
