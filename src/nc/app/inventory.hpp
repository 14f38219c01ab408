#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <vector>

#include "common/base/clock.hpp"
#include "common/bus/bus.hpp"
#include "common/inbox/inbox.hpp"
#include "common/msg/inventory.hpp"
#include "nc/domain/paths.hpp"
#include "nc/hypervisor/hypervisor.hpp"

namespace educloud::nc {

/// Cuts what a node holds into messages that fit the wire; `frame` gives everything but the lists and the
/// numbers of the parts. At least one part. Pure.
std::vector<msg::Inventory> split_inventory(const msg::Inventory& frame, std::vector<msg::InventoryVm> vms,
                                            std::vector<msg::InventoryTask> tasks);

/// Tells clc what is here: the VMs, the folders of instances that no VM uses and no task knows, and the tasks
/// with their last command. One thread at a time, but for `soon`.
class InventoryReporter {
 public:
  static constexpr std::int64_t kEveryMs = 30'000;

  struct Options {
    Layout layout{"/storage"};
    std::string host;
    std::string nid;  ///< of the heartbeat; may be empty
    std::string exchange = "cc_status", routing_key;
  };
  /// `lease_epoch`: of the last grant seen.
  InventoryReporter(Options options, inbox::Inbox& inbox, Hypervisor& hypervisor, bus::Bus& bus,
                    const Clock& clock, std::function<std::int64_t()> lease_epoch)
      : options_(std::move(options)),
        inbox_(inbox),
        hypervisor_(hypervisor),
        bus_(bus),
        clock_(clock),
        lease_epoch_(std::move(lease_epoch)) {}

  /// Sends one if it is due and the broker is there.
  void tick();
  /// The next tick sends one: the broker is there (again). From any thread.
  void soon() { due_ = true; }
  /// What would be sent now. Errors: the hypervisor does not answer; not knowing is not "none".
  Result<std::vector<msg::Inventory>> take();

 private:
  const Options options_;
  inbox::Inbox& inbox_;
  Hypervisor& hypervisor_;
  bus::Bus& bus_;
  const Clock& clock_;
  const std::function<std::int64_t()> lease_epoch_;
  std::atomic<bool> due_ = true;
  std::int64_t sent_at_ = 0;  ///< boot_ms
};

}  // namespace educloud::nc
