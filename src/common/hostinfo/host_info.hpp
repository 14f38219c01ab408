#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.hpp"
#include "common/msg/host_status.hpp"

namespace educloud::hostinfo {

/// Measures this host for its heartbeat. Not thread-safe: one owner calls it, say every 5 s.
class HostSampler {
 public:
  /// `disk_path`: any path on the file system to report (the prefix). `advertise`: the address by which
  /// others reach this host; empty: the first one found.
  HostSampler(std::filesystem::path disk_path, std::string advertise);

  /// cpu_usage is the mean since the call before (since construction at the first).
  /// Errors: internal or not_found if /proc or `disk_path` cannot be read.
  Result<msg::HardwareData> hardware();

  /// Source: getifaddrs(3), up to four interfaces that are up, not loopback and have an address. ip0 and
  /// exip are the advertised address; mac0 belongs to it, or to the first interface if it is loopback's.
  Result<msg::NetData> network() const;

 private:
  std::filesystem::path disk_path_;
  std::string advertise_;
  std::uint64_t cpu_total_ = 0;
  std::uint64_t cpu_idle_ = 0;
};

/// `nc#<mac0>#status`, `cc#<mac0>#status`: the id in heartbeats.
std::string status_id(std::string_view role, const msg::NetData& net);

/// The parts of it that need no host, for tests.
struct CpuTimes {
  int cpus = 0;
  std::uint64_t total = 0;  ///< clock ticks of all cpus since boot
  std::uint64_t idle = 0;   ///< of these idle or waiting for a disk
};
Result<CpuTimes> parse_cpu_times(std::string_view proc_stat);
struct Memory {
  std::int64_t total_mib = 0;
  std::int64_t available_mib = 0;
};
Result<Memory> parse_memory(std::string_view proc_meminfo);
struct Interface {
  std::string name;
  std::string ip;
  std::string mac;
};
msg::NetData arrange(std::vector<Interface> interfaces, const std::string& advertise);

}  // namespace educloud::hostinfo
