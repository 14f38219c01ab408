#pragma once

#include <map>
#include <mutex>
#include <string>
#include <thread>

#include "nc/hypervisor/hypervisor.hpp"

namespace educloud::nc {

/// What the guests' agents say, asked on a thread of its own: an agent that hangs must not hold up a
/// heartbeat.
class GuestWatch {
 public:
  explicit GuestWatch(Hypervisor& hypervisor) : hypervisor_(hypervisor) {}
  ~GuestWatch() { stop(); }

  void start();
  /// Idempotent.
  void stop();
  /// Asks every running guest once, on the caller's thread.
  void look(std::stop_token stop = {});
  /// As of the last look; empty: not known.
  GuestFacts facts(const InstanceId& insid) const;

 private:
  Hypervisor& hypervisor_;
  mutable std::mutex mutex_;
  std::map<std::string, GuestFacts> facts_;  ///< under mutex_; of the VMs of the last look
  std::jthread thread_;
};

}  // namespace educloud::nc
