#pragma once

#include <fstream>
#include <set>

#include "nc/app/image_tools.hpp"

namespace educloud::nc {

/// Image work on tiny real files; transfers only in memory.
class FakeImageTools : public ImageTools {
 public:
  explicit FakeImageTools(std::filesystem::path prefix) : prefix_(std::move(prefix)) {}

  Result<> fetch(const msg::ImageVersion& version, const std::string& grant, const OnCopied& progress,
                 std::stop_token stop) override {
    ++fetches;
    last_grant = grant;
    if (during_fetch) std::exchange(during_fetch, nullptr)();
    if (stop.stop_requested()) return fail(ErrorCode::cancelled, "stopped");
    if (fetch_error) return fail(*std::exchange(fetch_error, std::nullopt));
    progress(50, 100);
    write(path(version.imgid, version.version), "base");
    return {};
  }
  Result<DiskLayer> base(const std::string& imgid, int version) override {
    const auto file = path(imgid, version);
    if (!std::filesystem::exists(file)) return fail(ErrorCode::not_found, imgid);
    return DiskLayer{file, "qcow2"};
  }
  Result<> clone(const std::filesystem::path& from, const std::filesystem::path& to, const OnCopied& progress,
                 std::stop_token) override {
    ++clones;
    progress(1, 2);
    std::filesystem::copy_file(from, to);
    return {};
  }
  Result<> make_overlay(const DiskLayer& base, const std::filesystem::path& overlay) override {
    if (std::filesystem::exists(overlay)) return fail(ErrorCode::conflict, "exists");
    ++overlays;
    write(overlay, "overlay on " + base.file.string());
    return {};
  }
  Result<> flatten(const std::filesystem::path& overlay, const DiskLayer& base,
                   const std::filesystem::path& output, const std::function<void(int)>& percent,
                   std::stop_token) override {
    ++flattens;
    if (flatten_error) return fail(*std::exchange(flatten_error, std::nullopt));
    if (!std::filesystem::exists(overlay) || std::filesystem::exists(output))
      return fail(ErrorCode::conflict, "no");
    percent(50);
    write(output, "flat " + base.file.string());
    return {};
  }
  Result<std::string> digest(const std::filesystem::path&, const OnCopied&, std::stop_token) override {
    return std::string(64, 'a');
  }
  Result<std::string> upload(const Upload& what, const OnCopied& progress, std::stop_token) override {
    if (upload_error) return fail(*std::exchange(upload_error, std::nullopt));
    progress(1, 2);
    uploads.push_back(what);
    return "receipt";
  }
  Result<std::uint64_t> free_disk_bytes() override { return free_bytes; }
  void make_room(std::uint64_t, const Versions& keep) override {
    kept = keep;
    free_bytes += evictable_bytes;
  }
  std::vector<msg::CachedImage> cached() override { return {}; }
  std::uint64_t cached_bytes() override { return 0; }

  std::function<void()> during_fetch;
  std::optional<Error> fetch_error, flatten_error, upload_error;
  std::uint64_t free_bytes = 100ull << 30, evictable_bytes = 0;
  std::optional<Versions> kept;
  int fetches = 0, clones = 0, overlays = 0, flattens = 0;
  std::string last_grant;
  std::vector<Upload> uploads;

 private:
  std::filesystem::path path(const std::string& imgid, int version) const {
    return prefix_ / "images" / imgid / "versions" / std::to_string(version) / "machine";
  }
  static void write(const std::filesystem::path& file, const std::string& text) {
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  const std::filesystem::path prefix_;
};

}  // namespace educloud::nc
