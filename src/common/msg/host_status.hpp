#pragma once

#include "common/msg/codec.hpp"

namespace educloud::msg {

/// The daemon itself.
struct ServiceData {
  std::string version;
  std::string hypervisor;             ///< "kvm", "qemu" (TCG) or "fake"; empty from a cc
  std::int64_t started_at = 0;        ///< unix milliseconds
  std::int64_t booted_at = 0;         ///< of a node's host: rises with each reboot; 0: not told
  int data_port = 0;                  ///< its HTTP port on net_data.ip0
  std::vector<std::string> warnings;  ///< for the operator: "KVM is there but does not boot", ...

  static constexpr auto fields() {
    using T = ServiceData;
    return std::make_tuple(
        option("version", &T::version, text(0, 64)), option("hypervisor", &T::hypervisor, text(0, 16)),
        option("started_at", &T::started_at, range(0, 9.0e15)),
        option("booted_at", &T::booted_at, range(0, 9.0e15)),
        option("data_port", &T::data_port, range(0, 65535)), option("warnings", &T::warnings, list(20)));
  }
};

/// The host, measured now.
struct HardwareData {
  int cpus = 0;
  double cpu_usage = 0;         ///< percent of all cpus, mean since the last report
  std::int64_t mem = 0;         ///< MiB in the host
  std::int64_t mem_usage = 0;   ///< MiB not available to new processes
  std::int64_t disk = 0;        ///< MiB of the file system that holds the prefix
  std::int64_t disk_usage = 0;  ///< MiB of it in use

  static constexpr auto fields() {
    using T = HardwareData;
    return std::make_tuple(
        field("cpus", &T::cpus, range(0, 65536)), field("cpu_usage", &T::cpu_usage, range(0, 100)),
        field("mem", &T::mem, range(0, 9.0e15)), field("mem_usage", &T::mem_usage, range(0, 9.0e15)),
        field("disk", &T::disk, range(0, 9.0e15)), field("disk_usage", &T::disk_usage, range(0, 9.0e15)));
  }
};

/// Addresses: up to four interfaces, and the one users outside see. Empty where there is none.
struct NetData {
  std::string exip, ip0, ip1, ip2, ip3, mac0, mac1, mac2, mac3;

  static constexpr auto fields() {
    using T = NetData;
    constexpr Rule kAddress = text(0, 45);
    return std::make_tuple(field("exip", &T::exip, kAddress), field("ip0", &T::ip0, kAddress),
                           field("ip1", &T::ip1, kAddress), field("ip2", &T::ip2, kAddress),
                           field("ip3", &T::ip3, kAddress), field("mac0", &T::mac0, kAddress),
                           field("mac1", &T::mac1, kAddress), field("mac2", &T::mac2, kAddress),
                           field("mac3", &T::mac3, kAddress));
  }
};

/// One VM as the hypervisor reports it now.
struct VmData {
  std::string insid, uuid, guest_os;
  std::int64_t mem = 0;  ///< MiB
  int vcpu = 0;
  std::string state;         ///< running, paused, shutdown, shutoff, crashed
  double phy_cpu = 0;        ///< percent of one cpu, mean since the last report
  std::int64_t phy_mem = 0;  ///< MiB resident
  std::string hostname, ip;  ///< as its guest agent tells; empty: it has none

  static constexpr auto fields() {
    using T = VmData;
    return std::make_tuple(
        field("insid", &T::insid, text(1, 20)), field("uuid", &T::uuid, text(0, 36)),
        field("guest_os", &T::guest_os, text(0, 64)), field("mem", &T::mem, range(0, 9.0e15)),
        field("vcpu", &T::vcpu, range(0, 1024)), field("state", &T::state, text(0, 20)),
        field("phy_cpu", &T::phy_cpu, range(0, 9.0e6)), field("phy_mem", &T::phy_mem, range(0, 9.0e15)),
        option("hostname", &T::hostname, text(0, 64)), option("ip", &T::ip, text(0, 45)));
  }
};

/// One image version in a host's cache.
struct CachedImage {
  std::string imgid;
  int version = 0;
  std::string digest;  ///< SHA-256, hex

  static constexpr auto fields() {
    using T = CachedImage;
    return std::make_tuple(field("imgid", &T::imgid, text(11, 11)),
                           field("version", &T::version, range(1, 1e9)),
                           option("digest", &T::digest, text(0, 64)));
  }
};

/// Heartbeat of a node, every 5 s: nc -> cc -> clc.
struct NodeStatus {
  std::string type = "nodestatus";
  std::string nid;   ///< `nc#<mac0>#status`
  std::string host;  ///< host name: the key of everything about this node
  std::string ccid;  ///< host name of the cc that relayed it
  int v = 1;
  std::int64_t ts = 0;
  ServiceData service_data;
  HardwareData hardware_data;
  NetData net_data;
  std::vector<VmData> vm_data;
  std::vector<CachedImage> images;

  static constexpr auto fields() {
    using T = NodeStatus;
    return std::make_tuple(field("type", &T::type, choice("nodestatus")), field("nid", &T::nid, text(1, 64)),
                           field("service_data", &T::service_data), field("hardware_data", &T::hardware_data),
                           field("net_data", &T::net_data), field("vm_data", &T::vm_data, list(200)),
                           option("host", &T::host, text(0, 40)), option("ccid", &T::ccid, text(0, 40)),
                           option("v", &T::v, range(1, 1000)), option("ts", &T::ts, range(0, 9.0e15)),
                           option("images", &T::images, list(400)));
  }
};

/// Heartbeat of a cluster controller, every 5 s: cc -> clc.
struct CcStatus {
  std::string type = "ccstatus";
  std::string ccid;  ///< `cc#<mac0>#status`
  std::string host;
  int v = 1;
  std::int64_t ts = 0;
  ServiceData service_data;
  HardwareData hardware_data;
  NetData net_data;
  std::vector<CachedImage> images;

  static constexpr auto fields() {
    using T = CcStatus;
    return std::make_tuple(field("type", &T::type, choice("ccstatus")), field("ccid", &T::ccid, text(1, 64)),
                           field("service_data", &T::service_data), field("hardware_data", &T::hardware_data),
                           field("net_data", &T::net_data), option("host", &T::host, text(0, 40)),
                           option("v", &T::v, range(1, 1000)), option("ts", &T::ts, range(0, 9.0e15)),
                           option("images", &T::images, list(400)));
  }
};

}  // namespace educloud::msg
