#include "sim/nodes/everything_here.hpp"

namespace educloud::sim {
namespace {

constexpr std::uint64_t kDiskBytes = 10ull << 30;
constexpr std::uint64_t kFreeBytes = 1ull << 40;
/// Told in heartbeats; more are served all the same.
constexpr std::size_t kRemembered = 100;

tl::unexpected<Error> without_disks() {
  return fail(ErrorCode::invalid_argument, "this node is a lightweight one of educloud-sim: it has no disks");
}

}  // namespace

Result<> EverythingHere::fetch(const nc::FillRequest& request, const nc::OnCopied&, std::stop_token) {
  const std::lock_guard lock(mutex_);
  if (asked_for_.size() >= kRemembered) return {};
  asked_for_.emplace(std::pair(request.imgid, request.version), request.digest.hex());
  return {};
}

Result<std::shared_ptr<nc::NodeCache::Reader>> EverythingHere::open_lazily(const nc::FillRequest&,
                                                                           std::stop_token) {
  return without_disks();
}

Result<nc::BaseDisk> EverythingHere::base(const std::string& imgid, int version) {
  const auto file = prefix_ / "images" / imgid / "versions" / std::to_string(version) / "machine";
  return nc::BaseDisk{{{file, "raw"}}, kDiskBytes};
}

Result<> EverythingHere::make_overlay(const nc::DiskLayer&, std::uint64_t, const std::filesystem::path&) {
  return {};
}

Result<nc::SubmitReport> EverythingHere::submit(const nc::SubmitJob&, const nc::OnCopied&, std::stop_token) {
  return without_disks();
}

Result<std::uint64_t> EverythingHere::free_disk_bytes() {
  return kFreeBytes;
}

std::vector<msg::CachedImage> EverythingHere::cached() {
  const std::lock_guard lock(mutex_);
  std::vector<msg::CachedImage> all;
  for (const auto& [version, digest] : asked_for_) all.push_back({version.first, version.second, digest});
  return all;
}

}  // namespace educloud::sim
