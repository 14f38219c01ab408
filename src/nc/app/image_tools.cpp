#include "nc/app/image_tools.hpp"

#include <condition_variable>
#include <set>

#include "common/image/convert.hpp"
#include "common/image/copy.hpp"
#include "common/image/digest.hpp"
#include "common/obs/log.hpp"
#include "common/obs/metrics.hpp"
#include "common/sys/file.hpp"
#include "common/transfer/fetcher.hpp"
#include "common/transfer/receipt.hpp"
#include "common/transfer/upload_client.hpp"

namespace educloud::nc {
namespace {

constexpr std::size_t kListedImages = 400;  // as many as a heartbeat may carry

transfer::OnProgress forward(const OnCopied& progress) {
  return [progress](const transfer::Progress& now) {
    if (progress) progress(now.bytes_done, now.bytes_total);
  };
}

class NodeImageTools : public ImageTools {
 public:
  NodeImageTools(NodeImageOptions options, image::VersionStore& store)
      : options_(std::move(options)), store_(store) {}

  Result<> fetch(const msg::ImageVersion& version, const std::string& grant, const OnCopied& progress,
                 std::stop_token stop) override {
    const std::string key = version.imgid + "/" + std::to_string(version.version);
    {
      // Several VMs of a class start from one image: the first fetches, the others find it there.
      std::unique_lock lock(mutex_);
      if (!changed_.wait(lock, stop, [&] { return !fetching_.contains(key); })) {
        return fail(ErrorCode::cancelled, "fetch of " + key + " was cancelled");
      }
      fetching_.insert(key);
    }
    transfer::FetchRequest request{.base = options_.cc};
    request.grant = grant;
    request.imgid = version.imgid;
    request.version = version.version;
    request.digest = version.digest;
    request.size_bytes = static_cast<std::uint64_t>(version.size_bytes);
    request.format = version.format;
    request.client = options_.client;
    auto done = transfer::fetch_version(store_, request, forward(progress), stop);
    {
      std::lock_guard lock(mutex_);
      fetching_.erase(key);
    }
    changed_.notify_all();
    if (!done) return done;
    store_.touch(version.imgid, version.version);
    return store_.set_current(version.imgid, version.version);
  }

  Result<DiskLayer> base(const std::string& imgid, int version) override {
    auto info = store_.find(imgid, version);
    if (!info) return fail(info.error());
    store_.touch(imgid, version);
    return DiskLayer{store_.machine_path(imgid, version), info->format};
  }

  Result<> clone(const std::filesystem::path& from, const std::filesystem::path& to, const OnCopied& progress,
                 std::stop_token stop) override {
    auto copied = image::copy_sparse(from, to, progress, stop);
    if (!copied) return fail(copied.error());
    return {};
  }

  Result<> make_overlay(const DiskLayer& base, const std::filesystem::path& overlay) override {
    auto format = image::parse_format(base.format);
    if (!format) return fail(format.error());
    return image::create_overlay(base.file, *format, overlay);
  }

  Result<> flatten(const std::filesystem::path& overlay, const DiskLayer& base,
                   const std::filesystem::path& output, const std::function<void(int)>& percent,
                   std::stop_token stop) override {
    auto format = image::parse_format(base.format);
    if (!format) return fail(format.error());
    image::FlattenRequest request;
    request.overlay = overlay;
    request.base = base.file;
    request.base_format = *format;
    request.output = output;
    request.on_percent = percent;
    auto header = image::flatten(request, stop);
    if (!header) return fail(header.error());
    return {};
  }

  Result<std::string> digest(const std::filesystem::path& file, const OnCopied& progress,
                             std::stop_token stop) override {
    return image::sha256_file(file, progress, stop);
  }

  Result<std::string> upload(const Upload& what, const OnCopied& progress, std::stop_token stop) override {
    transfer::UploadRequest request{.base = options_.cc};
    request.grant = what.grant;
    request.imgid = what.imgid;
    request.version = what.version;
    request.file = what.file;
    request.cmdid = what.cmdid;
    request.digest = what.digest;
    request.parent =
        what.parent_version > 0 ? transfer::make_parent(what.parent_imgid, what.parent_version) : "";
    request.client = options_.client;
    return transfer::upload_version(request, forward(progress), stop);
  }

  Result<std::uint64_t> free_disk_bytes() override {
    auto space = sys::disk_space(store_.prefix());
    if (!space) return fail(space.error());
    return space->free_bytes;
  }

  void make_room(std::uint64_t wanted, const Versions& keep) override {
    auto candidates = store_.eviction_candidates();
    if (!candidates) {
      obs::warn("cache.unreadable", {{"reason", candidates.error().message}});
      return;
    }
    for (const auto& one : *candidates) {
      auto free_bytes = free_disk_bytes();
      if (!free_bytes || *free_bytes >= wanted) return;
      if (keep.contains({one.info.image, one.info.version})) continue;
      if (auto ok = store_.remove(one.info.image, one.info.version); !ok) {
        obs::warn("cache.not_evicted", {{"imgid", one.info.image}, {"reason", ok.error().message}});
        continue;
      }
      obs::info("cache.evicted", {{"imgid", one.info.image},
                                  {"version", one.info.version},
                                  {"bytes", one.allocated_bytes},
                                  {"last_used_ms", one.last_used_ms}});
      obs::metrics().count("educloud_nc_cache_evicted_bytes_total", "Bytes of cached images removed",
                           static_cast<double>(one.allocated_bytes));
    }
  }

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
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::set<std::string> fetching_;  // under mutex_
};

}  // namespace

std::unique_ptr<ImageTools> make_image_tools(NodeImageOptions options, image::VersionStore& store) {
  return std::make_unique<NodeImageTools>(std::move(options), store);
}

}  // namespace educloud::nc
