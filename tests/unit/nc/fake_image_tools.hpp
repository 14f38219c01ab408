#pragma once

#include <fstream>
#include <set>

#include "nc/app/image_tools.hpp"

namespace educloud::nc {

/// A version that arrives: what was read of it is told.
class FakeReader : public NodeCache::Reader {
 public:
  std::uint64_t disk_bytes() const override { return 1 << 20; }
  bool is_complete() const override { return false; }
  Result<> read(std::uint64_t, std::span<char> out, std::stop_token) override {
    ++reads;
    if (failures > 0) return --failures, fail(ErrorCode::unavailable, "the cc is away");
    std::ranges::fill(out, 'x');
    return {};
  }
  std::atomic<int> reads = 0, failures = 0;
};

/// Image work on tiny real files; transfers only in memory.
class FakeImageTools : public ImageTools {
 public:
  explicit FakeImageTools(std::filesystem::path prefix) : prefix_(std::move(prefix)) {}

  Result<> fetch(const FillRequest& request, const OnCopied& progress, std::stop_token stop) override {
    ++fetches;
    last_request = request;
    if (during_fetch) std::exchange(during_fetch, nullptr)();
    if (stop.stop_requested()) return fail(ErrorCode::cancelled, "stopped");
    if (fetch_error) return fail(*std::exchange(fetch_error, std::nullopt));
    progress(50, 100);
    arrive(request.imgid, request.version);
    return {};
  }
  Result<std::shared_ptr<NodeCache::Reader>> open_lazily(const FillRequest& request,
                                                         std::stop_token) override {
    ++lazies;
    last_request = request;
    if (fetch_error) return fail(*std::exchange(fetch_error, std::nullopt));
    return reader;
  }
  Result<BaseDisk> base(const std::string& imgid, int version) override {
    const auto file = path(imgid, version);
    if (!std::filesystem::exists(file)) return fail(ErrorCode::not_found, imgid);
    return BaseDisk{{{file, "qcow2"}, {path(imgid, 1), "raw"}}, 1 << 20};
  }
  Result<> make_overlay(const DiskLayer& base, std::uint64_t disk_bytes,
                        const std::filesystem::path& overlay) override {
    if (std::filesystem::exists(overlay)) return fail(ErrorCode::conflict, "exists");
    ++overlays;
    write(overlay, "overlay of " + std::to_string(disk_bytes) + " on " + base.file.string());
    return {};
  }
  Result<SubmitReport> submit(const SubmitJob& job, const OnCopied& progress, std::stop_token) override {
    if (submit_error) return fail(*std::exchange(submit_error, std::nullopt));
    progress(1, 2);
    submits.push_back(job);
    SubmitReport report;
    report.receipt = "receipt";
    report.candidate_bytes = 2 << 20;
    report.changed_bytes = 1 << 20;
    report.sent_bytes = 1 << 19;
    return report;
  }
  Result<std::uint64_t> free_disk_bytes() override { return free_bytes; }
  void set_in_use(const Versions& versions) override { in_use = versions; }
  void make_room(std::uint64_t) override {
    kept = in_use;
    free_bytes += evictable_bytes;
  }
  std::vector<msg::CachedImage> cached() override { return relatives; }
  std::uint64_t cached_bytes() override { return 0; }

  /// Version `version` is here from now on.
  void arrive(const std::string& imgid, int version) { write(path(imgid, version), "base"); }

  std::function<void()> during_fetch;
  std::optional<Error> fetch_error, submit_error;
  std::uint64_t free_bytes = 100ull << 30, evictable_bytes = 0;
  Versions in_use;
  std::optional<Versions> kept;
  std::vector<msg::CachedImage> relatives;
  int fetches = 0, overlays = 0;
  std::atomic<int> lazies = 0;
  FillRequest last_request;
  std::vector<SubmitJob> submits;
  std::shared_ptr<FakeReader> reader = std::make_shared<FakeReader>();

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
