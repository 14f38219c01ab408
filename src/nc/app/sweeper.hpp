#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "common/base/clock.hpp"
#include "common/inbox/inbox.hpp"
#include "nc/app/node.hpp"
#include "nc/domain/paths.hpp"
#include "nc/hypervisor/hypervisor.hpp"

namespace educloud::nc {

/// Finds what belongs to no task of the inbox and no VM: folders of desktops with their sockets, and
/// unfinished files of the cache. The first time it only says so; what is so 10 min later is removed. Folders
/// of builds and modifies hold a user's work: those are only said, clc's word (task/delete) removes them. One
/// thread.
class OrphanSweeper {
 public:
  static constexpr std::int64_t kLookMs = 60'000;
  static constexpr std::int64_t kGraceMs = 10 * 60'000;

  OrphanSweeper(Layout layout, inbox::Inbox& inbox, Hypervisor& hypervisor, Node& node, const Clock& clock)
      : layout_(std::move(layout)), inbox_(inbox), hypervisor_(hypervisor), node_(node), clock_(clock) {}

  /// Looks, if it is time to.
  void tick();

 private:
  struct Orphan {
    std::filesystem::path path;
    std::string what;                   ///< for the log: instance, build, transfer
    std::optional<InstanceId> desktop;  ///< its folder
    bool may_go = false;
  };
  struct Owners {
    std::set<std::string> instances, builds, versions;
  };

  std::optional<Owners> owners();
  std::vector<Orphan> look(const Owners& owners) const;
  void look_at_transfers(const Owners& owners, std::vector<Orphan>& found) const;
  void remove(const Orphan& orphan);

  const Layout layout_;
  inbox::Inbox& inbox_;
  Hypervisor& hypervisor_;
  Node& node_;
  const Clock& clock_;
  std::int64_t looked_at_ = 0;                ///< boot_ms
  std::map<std::string, std::int64_t> seen_;  ///< path -> boot_ms of the first time
};

}  // namespace educloud::nc
