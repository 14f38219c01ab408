// Snapshots of FakeHypervisor: names only.
#include "nc/hypervisor/fake_hypervisor.hpp"

namespace educloud::nc {

Result<std::vector<DiskSnapshot>> FakeHypervisor::snapshots(const InstanceId& insid,
                                                            const std::filesystem::path& disk) {
  if (auto now = state(insid); !now) return fail(now.error());
  std::lock_guard lock(mutex_);
  return snapshots_[disk.string()];
}

Result<> FakeHypervisor::take_snapshot(const InstanceId& insid, const std::filesystem::path& disk,
                                       const std::string& name, bool with_memory, std::stop_token) {
  auto known = snapshots(insid, disk);
  if (!known) return fail(known.error());
  for (const auto& one : *known) {
    if (one.name == name) return {};
  }
  std::lock_guard lock(mutex_);
  snapshots_[disk.string()].push_back({name, with_memory});
  return {};
}

Result<> FakeHypervisor::load_snapshot(const InstanceId& insid, const std::filesystem::path&,
                                       const std::string& name, std::stop_token) {
  if (auto now = state(insid); !now) return fail(now.error());
  std::lock_guard lock(mutex_);
  if (spoilt_.contains(name)) return fail(ErrorCode::corrupt, "it cannot be read");
  return {};
}

Result<> FakeHypervisor::drop_snapshot(const InstanceId& insid, const std::filesystem::path& disk,
                                       const std::string& name) {
  if (auto now = state(insid); !now) return fail(now.error());
  std::lock_guard lock(mutex_);
  std::erase_if(snapshots_[disk.string()], [&](const DiskSnapshot& one) { return one.name == name; });
  return {};
}

Result<std::string> FakeHypervisor::recipe(const InstanceId& insid) {
  if (auto now = state(insid); !now) return fail(now.error());
  return fail(ErrorCode::conflict, "a VM in memory only has no recipe");
}

Result<> FakeHypervisor::start_again(const std::string&) {
  return fail(ErrorCode::conflict, "a VM in memory only has no recipe");
}

void FakeHypervisor::spoil_snapshot(const std::string& name) {
  std::lock_guard lock(mutex_);
  spoilt_.insert(name);
}

}  // namespace educloud::nc
