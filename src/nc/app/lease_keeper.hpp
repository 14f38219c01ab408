#pragma once

#include <condition_variable>
#include <filesystem>
#include <functional>
#include <mutex>
#include <set>
#include <stop_token>
#include <string>
#include <thread>

#include "common/base/clock.hpp"
#include "common/bus/bus.hpp"
#include "nc/domain/lease.hpp"
#include "nc/hypervisor/hypervisor.hpp"

namespace educloud::nc {

/// Keeps the node to its lease: takes clc's grants, says whether something new may start, and ends VMs with
/// an exclusive disk when the lease has run out. Thread-safe.
class LeaseKeeper {
 public:
  struct Options {
    std::string host;
    std::filesystem::path state_dir;  ///< the last grant is noted there for the watchdog
    /// How long may_start waits for a grant: after a cut, commands come back before it does.
    std::chrono::milliseconds patience{15'000};
    /// A grant with a higher epoch came: clc had declared this node lost. On the bus's thread.
    std::function<void()> on_new_epoch = [] {};
  };
  LeaseKeeper(Options options, Hypervisor& hypervisor, const Clock& clock);
  ~LeaseKeeper() { stop(); }

  /// One message of the lease queue; settles it.
  void take(const bus::Delivery& delivery);
  /// Waits a while for a grant if there is none. Errors: unavailable, saying what to check; cancelled.
  Result<> may_start(std::stop_token stop);
  /// Ends what may not run any more.
  void tick();
  /// Of a VM with an exclusive disk that has ended. True, once, if tick() did that, or may have been the
  /// watchdog.
  bool has_ended(const InstanceId& insid);
  /// Of the last grant; 0: none since our start.
  std::int64_t epoch() const;

  /// Ticks once a second in a thread.
  void start();
  void stop();

 private:
  const Options options_;
  Hypervisor& hypervisor_;
  const Clock& clock_;
  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  Lease lease_;                  // under mutex_
  bool is_warned_ = false;       // under mutex_: the file cannot be written
  std::set<std::string> ended_;  // under mutex_
  bool was_expired_ = false;     // tick's thread
  std::jthread thread_;
};

}  // namespace educloud::nc
