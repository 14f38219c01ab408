#pragma once

#include <condition_variable>
#include <map>
#include <mutex>
#include <string>
#include <thread>

#include "common/base/clock.hpp"
#include "common/bus/bus.hpp"
#include "common/hostinfo/host_info.hpp"
#include "nc/app/config.hpp"
#include "nc/app/folders.hpp"
#include "nc/app/guest_watch.hpp"
#include "nc/app/image_tools.hpp"
#include "nc/app/node.hpp"
#include "nc/hypervisor/hypervisor.hpp"

namespace educloud::nc {

/// Every 5 s: the node's status to the broker, the metrics, the look for VMs that ended unseen, and the
/// cutting of console logs that grew past their limit.
class Heartbeat {
 public:
  struct Parts {
    bus::Bus& bus;
    Hypervisor& hypervisor;
    ImageTools& images;
    Node& node;
    const Folders& folders;
    const Clock& clock;
    std::int64_t booted_at = 0;  ///< of the host (boot_marker.hpp)
  };
  Heartbeat(const Config& config, Parts parts, int data_port);
  ~Heartbeat() { stop(); }

  void start();
  void stop();
  /// What would be sent now. One thread at a time.
  msg::NodeStatus sample();
  /// One beat on the caller's thread.
  void beat();

 private:
  std::vector<msg::VmData> sample_vms();
  void write_metrics(const msg::NodeStatus& status);

  const Config& config_;
  Parts parts_;
  const int data_port_;
  const std::int64_t started_at_;
  hostinfo::HostSampler host_;
  struct CpuSample {
    std::uint64_t cpu_time_ns = 0;
    std::int64_t boot_ms = 0;
  };
  std::map<std::string, CpuSample> cpu_;  ///< by uuid, for the mean since the last beat
  std::string vm_warning_;
  GuestWatch guests_;
  std::jthread thread_;
};

/// Keeps the newer part of a console log that is over `limit_bytes`: its tail goes to `<file>.1` and the file
/// is cut to nothing. QEMU writes with O_APPEND, so it goes on at the new end.
Result<> cut_console(const std::filesystem::path& file, std::uint64_t limit_bytes);
/// The last `most` bytes of a console log and its predecessor. Errors: not_found.
Result<std::string> read_console(const std::filesystem::path& file, std::size_t most);

}  // namespace educloud::nc
