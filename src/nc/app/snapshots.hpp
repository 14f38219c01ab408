#pragma once

#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "nc/domain/paths.hpp"
#include "nc/hypervisor/hypervisor.hpp"

namespace educloud::nc {

/// What an operation on snapshots came to.
struct SnapshotDone {
  std::optional<VmState> state;  ///< of the VM now; none: it does not run
  std::string snapshot;          ///< the one it was about in the end
  std::string prompt;            ///< for a person
};

/// Snapshots of an instance, inside of its overlay: of the disk, or of the disk and the running guest's
/// memory. VMs/<insid>/snapshots.json keeps their order, so that an older one is found even if a newer one is
/// lost. All calls block, one at a time per instance, and may be done again after a kill at any instant.
class Snapshots {
 public:
  Snapshots(const Layout& layout, Hypervisor& hypervisor) : layout_(layout), hypervisor_(hypervisor) {}

  /// Errors: conflict (there is nothing to keep), exhausted, unavailable, cancelled.
  Result<SnapshotDone> take(const InstanceId& insid, const std::string& name, bool with_memory,
                            const std::stop_token& stop);
  /// The instance is again what it was then. With its memory it goes on from there; else a running VM is
  /// switched off and on. If that one cannot be used, the next older one that can.
  /// Errors: corrupt (none could be used, saying why), conflict, unavailable, cancelled.
  Result<SnapshotDone> restore(const InstanceId& insid, const std::string& name, const std::stop_token& stop);
  /// Not there: success.
  Result<SnapshotDone> remove(const InstanceId& insid, const std::string& name);
  /// Takes all snapshots out of the overlay of a VM that does not run: one with snapshots is not submitted.
  Result<> clear(const InstanceId& insid);
  /// The VM's overlay is thrown away, and with it its snapshots.
  Result<> forget(const InstanceId& insid) const;
  /// A restore switched the VM off and was interrupted before it was on again.
  bool is_between(const InstanceId& insid) const;

 private:
  Result<std::optional<VmState>> state_of(const InstanceId& insid);
  Result<> need_overlay(const InstanceId& insid) const;
  Result<std::vector<std::string>> order(const InstanceId& insid) const;
  Result<> keep_order(const InstanceId& insid, const std::vector<std::string>& names) const;
  /// `name` and what is older, newest first.
  Result<std::vector<std::string>> candidates(const InstanceId& insid, const std::string& name) const;
  Result<std::string> apply_first(const InstanceId& insid, std::vector<std::string> names, std::string& why);
  Result<SnapshotDone> restore_stopped(const InstanceId& insid, std::vector<std::string> names,
                                       std::string why);
  Result<SnapshotDone> restore_off_and_on(const InstanceId& insid, std::vector<std::string> names,
                                          std::string why);

  const Layout layout_;
  Hypervisor& hypervisor_;
};

/// `snap-` and 8 hex digits. Errors: invalid_argument with key "snapshot".
Result<> check_snapshot_name(std::string_view name);

}  // namespace educloud::nc
