#pragma once

#include <mutex>

#include "nc/app/image_tools.hpp"
#include "nc/domain/paths.hpp"

namespace educloud::sim {

/// Images of a node without disks: every version is there as soon as somebody asks for it, overlays are not
/// made, and nothing can be submitted.
class EverythingHere : public nc::ImageTools {
 public:
  explicit EverythingHere(std::filesystem::path prefix) : prefix_(std::move(prefix)) {}

  Result<> fetch(const nc::FillRequest& request, const nc::OnCopied& progress, std::stop_token stop) override;
  Result<std::shared_ptr<nc::NodeCache::Reader>> open_lazily(const nc::FillRequest& request,
                                                             std::stop_token stop) override;
  Result<nc::BaseDisk> base(const std::string& imgid, int version) override;
  Result<> make_overlay(const nc::DiskLayer& base, std::uint64_t disk_bytes,
                        const std::filesystem::path& overlay) override;
  Result<nc::SubmitReport> submit(const nc::SubmitJob& job, const nc::OnCopied& progress,
                                  std::stop_token stop) override;
  Result<std::uint64_t> free_disk_bytes() override;
  void set_in_use(const nc::Versions&) override {}
  void make_room(std::uint64_t) override {}
  std::vector<msg::CachedImage> cached() override;
  std::uint64_t cached_bytes() override { return 0; }

 private:
  const std::filesystem::path prefix_;
  std::mutex mutex_;
  std::map<std::pair<std::string, int>, std::string> asked_for_;  // under mutex_: (imgid, version) -> digest
};

}  // namespace educloud::sim
