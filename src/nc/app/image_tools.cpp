#include "nc/app/image_tools.hpp"

#include "common/http/client.hpp"
#include "common/obs/log.hpp"
#include "common/sys/file.hpp"
#include "common/sys/process.hpp"
#include "common/transfer/receipt.hpp"

namespace educloud::nc {
namespace {

constexpr std::size_t kListedImages = 400;  // as many as a heartbeat may carry
constexpr std::uint64_t kSector = 512;

/// How a qcow2 header names what it stands on.
std::string backing_name(const DiskLayer& base) {
  if (!base.is_nbd) return base.file.string();
  return "nbd+unix:///disk?socket=" + http::url_encode(base.file.string());
}

Result<> create_qcow2(const DiskLayer& base, std::uint64_t disk_bytes, const std::filesystem::path& overlay) {
  std::error_code error;
  if (std::filesystem::exists(std::filesystem::symlink_status(overlay, error))) {
    return fail(ErrorCode::conflict, overlay.string() + " exists already");
  }
  // -u: the base is not opened. It is one of ours, or on a socket that only a VM should read from.
  sys::ProcessOptions options;
  options.argv = {"qemu-img",
                  "create",
                  "-q",
                  "-u",
                  "-f",
                  "qcow2",
                  "-o",
                  "compat=1.1,cluster_size=65536",
                  "-F",
                  base.format,
                  "-b",
                  backing_name(base),
                  overlay.string(),
                  std::to_string((disk_bytes + kSector - 1) / kSector * kSector)};
  auto made = sys::run_checked(options);
  if (!made) {
    std::filesystem::remove(overlay, error);
    auto reason = made.error();
    if (reason.message.find("No space left") != std::string::npos) reason.code = ErrorCode::exhausted;
    return fail(std::move(reason), "make " + overlay.string());
  }
  return sys::sync_path(overlay);
}

class NodeImageTools : public ImageTools {
 public:
  NodeImageTools(NodeImageOptions options, image::VersionStore& store, NodeCache& cache)
      : options_(std::move(options)), store_(store), cache_(cache) {}

  Result<> fetch(const FillRequest& request, const OnCopied& progress, std::stop_token stop) override {
    if (auto done = cache_.fill(request, progress, stop); !done) return done;
    store_.touch(request.imgid, request.version);
    return store_.set_current(request.imgid, request.version);
  }

  Result<std::shared_ptr<NodeCache::Reader>> open_lazily(const FillRequest& request,
                                                         std::stop_token stop) override {
    return cache_.open_lazily(request, stop);
  }

  Result<BaseDisk> base(const std::string& imgid, int version) override {
    auto info = store_.find(imgid, version);
    if (!info) return fail(info.error());
    auto layers = cache_.layers(imgid, version);
    if (!layers) return fail(layers.error());
    store_.touch(imgid, version);
    return BaseDisk{std::move(*layers), info->virtual_size_bytes};
  }

  Result<> make_overlay(const DiskLayer& base, std::uint64_t disk_bytes,
                        const std::filesystem::path& overlay) override {
    return create_qcow2(base, disk_bytes, overlay);
  }

  Result<SubmitReport> submit(const SubmitJob& job, const OnCopied& progress, std::stop_token stop) override {
    auto layers = cache_.layers(job.parent_imgid, job.parent_version);
    if (!layers) return fail(layers.error());
    auto base = cache_.map(job.parent_imgid, job.parent_version);
    if (!base) return fail(base.error());
    SubmitRequest request{.remote = {.base = options_.cc,
                                     .imgid = job.target_imgid,
                                     .version = job.target_version,
                                     .grant = job.grant,
                                     .client = options_.client},
                          .layers = {},
                          .changed_layers = job.changed.size(),
                          .base = std::move(*base),
                          .parent = transfer::make_parent(job.parent_imgid, job.parent_version),
                          .if_current = job.if_current,
                          .cmdid = job.cmdid,
                          .connections = options_.connections};
    for (const auto& file : job.changed) request.layers.push_back({file, "qcow2"});
    for (const auto& layer : *layers) request.layers.push_back({layer.file, layer.format});
    return submit_changes(request, progress, stop);
  }

  Result<std::uint64_t> free_disk_bytes() override {
    auto space = sys::disk_space(store_.prefix());
    if (!space) return fail(space.error());
    return space->free_bytes;
  }

  void set_in_use(const Versions& versions) override { cache_.set_in_use(versions); }
  void make_room(std::uint64_t wanted) override { cache_.make_room(wanted); }

  std::vector<msg::CachedImage> cached() override {
    std::vector<msg::CachedImage> all;
    auto versions = store_.list();
    if (!versions) {
      obs::warn("cache.unreadable", {{"reason", versions.error().message}});
      return all;
    }
    for (const auto& one : *versions) {
      if (all.size() == kListedImages) break;
      all.push_back({one.image, one.version, one.digest});
    }
    return all;
  }

  std::uint64_t cached_bytes() override { return store_.allocated_bytes().value_or(0); }

 private:
  const NodeImageOptions options_;
  image::VersionStore& store_;
  NodeCache& cache_;
};

}  // namespace

std::unique_ptr<ImageTools> make_image_tools(NodeImageOptions options, image::VersionStore& store,
                                             NodeCache& cache) {
  return std::make_unique<NodeImageTools>(std::move(options), store, cache);
}

}  // namespace educloud::nc
