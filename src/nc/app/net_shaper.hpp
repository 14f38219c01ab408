#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <mutex>

#include "nc/app/net_lane.hpp"
#include "nc/domain/paths.hpp"
#include "nc/hypervisor/hypervisor.hpp"

namespace educloud::nc {

/// Network rates of VMs. QEMU's user-mode network has none, so the frames of a limited VM take a way through
/// us (NetLane). `VMs/<insid>/net_limit` says the rate, so that it holds again after our restart; between a
/// kill and the next start a limited VM has no network. Thread-safe.
class NetShaper {
 public:
  NetShaper(const Layout& layout, Hypervisor& hypervisor) : layout_(layout), hypervisor_(hypervisor) {}

  /// Mbit a second each way, from now on; 0: no limit. The VM runs. Errors: as Hypervisor::divert_network;
  /// then tend() tries again, and until it succeeds there is no limit.
  Result<> limit(const InstanceId& insid, std::int64_t mbit_s);
  /// The VM is over.
  void drop(const InstanceId& insid);
  /// Now and then: brings back what is gone after a restart of ours, of the VM's process, or of libvirt.
  void tend();
  /// Lets the frames of all VMs take the short way while we are away. Idempotent.
  void stop();

 private:
  Result<> divert(const InstanceId& insid, std::int64_t mbit_s);
  std::map<InstanceId, std::int64_t> wanted() const;

  const Layout layout_;
  Hypervisor& hypervisor_;
  std::mutex mutex_;  ///< held over calls of the hypervisor: they are few and short
  std::map<InstanceId, std::unique_ptr<NetLane>> lanes_;
  std::map<InstanceId, std::chrono::steady_clock::time_point> again_at_;
  bool stopped_ = false;
};

}  // namespace educloud::nc
