#include "common/hostinfo/host_info.hpp"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netpacket/packet.h>

#include <array>
#include <cstdio>
#include <fstream>
#include <map>
#include <sstream>

#include "common/sys/file.hpp"

namespace educloud::hostinfo {
namespace {

constexpr std::size_t kAddressBytes = 45;

/// read_file asks for a size first, which files of /proc do not have.
Result<std::string> read_proc(const char* path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file) return fail(ErrorCode::internal, std::string("cannot read ") + path);
  return text.str();
}

std::string mac_text(const sockaddr_ll& link) {
  if (link.sll_halen != 6) return {};
  std::array<char, 18> text{};
  std::snprintf(text.data(), text.size(), "%02x:%02x:%02x:%02x:%02x:%02x", link.sll_addr[0], link.sll_addr[1],
                link.sll_addr[2], link.sll_addr[3], link.sll_addr[4], link.sll_addr[5]);
  return text.data();
}

std::string address_text(const sockaddr* address) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (address->sa_family == AF_INET) {
    ::inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(address)->sin_addr, text.data(), text.size());
  } else {
    const auto& in6 = reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr;
    if (IN6_IS_ADDR_LINKLOCAL(&in6)) return {};  // needs a scope, so nobody else could use it
    ::inet_ntop(AF_INET6, &in6, text.data(), text.size());
  }
  return text.data();
}

}  // namespace

Result<CpuTimes> parse_cpu_times(std::string_view proc_stat) {
  CpuTimes out;
  std::istringstream lines{std::string(proc_stat)};
  for (std::string line; std::getline(lines, line) && line.starts_with("cpu");) {
    if (!line.starts_with("cpu ")) {
      ++out.cpus;
      continue;
    }
    std::istringstream fields(line.substr(4));
    std::uint64_t ticks = 0;
    // user nice system idle iowait irq softirq steal; guest time after them is in user already.
    for (int i = 0; i < 8 && fields >> ticks; ++i) {
      out.total += ticks;
      if (i == 3 || i == 4) out.idle += ticks;
    }
  }
  if (out.cpus == 0 || out.total == 0) return fail(ErrorCode::internal, "/proc/stat has no cpu lines");
  return out;
}

Result<Memory> parse_memory(std::string_view proc_meminfo) {
  Memory out;
  std::istringstream lines{std::string(proc_meminfo)};
  for (std::string line; std::getline(lines, line);) {
    std::istringstream fields(line);
    std::string key;
    std::int64_t kib = 0;
    if (!(fields >> key >> kib)) continue;
    if (key == "MemTotal:") out.total_mib = kib / 1024;
    if (key == "MemAvailable:") out.available_mib = kib / 1024;
  }
  if (out.total_mib == 0) return fail(ErrorCode::internal, "/proc/meminfo has no MemTotal");
  return out;
}

msg::NetData arrange(std::vector<Interface> interfaces, const std::string& advertise) {
  std::erase_if(interfaces, [](const Interface& one) { return one.ip.empty(); });
  std::string first_mac;
  for (const auto& one : interfaces) {
    if (first_mac.empty() && one.name != "lo") first_mac = one.mac;
  }
  const auto advertised = std::find_if(interfaces.begin(), interfaces.end(),
                                       [&](const Interface& one) { return one.ip == advertise; });
  if (advertised != interfaces.end()) {
    std::rotate(interfaces.begin(), advertised, advertised + 1);
  } else if (!advertise.empty() && advertise.size() <= kAddressBytes) {
    interfaces.insert(interfaces.begin(),
                      {"", advertise, first_mac});  // a name, or an address in front of us
  }
  std::erase_if(interfaces, [&](const Interface& one) { return one.name == "lo" && one.ip != advertise; });
  if (!interfaces.empty() && interfaces.front().name == "lo") interfaces.front().mac = first_mac;
  interfaces.resize(4);
  msg::NetData net;
  net.exip = interfaces[0].ip;
  net.ip0 = interfaces[0].ip;
  net.ip1 = interfaces[1].ip;
  net.ip2 = interfaces[2].ip;
  net.ip3 = interfaces[3].ip;
  net.mac0 = interfaces[0].mac;
  net.mac1 = interfaces[1].mac;
  net.mac2 = interfaces[2].mac;
  net.mac3 = interfaces[3].mac;
  return net;
}

std::string status_id(std::string_view role, const msg::NetData& net) {
  return std::string(role) + "#" + net.mac0 + "#status";
}

HostSampler::HostSampler(std::filesystem::path disk_path, std::string advertise)
    : disk_path_(std::move(disk_path)), advertise_(std::move(advertise)) {
  const auto text = read_proc("/proc/stat");
  const auto times = text ? parse_cpu_times(*text) : fail(text.error());
  if (!times) return;  // hardware() will say it
  cpu_total_ = times->total;
  cpu_idle_ = times->idle;
}

Result<msg::HardwareData> HostSampler::hardware() {
  const auto stat = read_proc("/proc/stat");
  if (!stat) return fail(stat.error());
  const auto times = parse_cpu_times(*stat);
  if (!times) return fail(times.error());
  const auto meminfo = read_proc("/proc/meminfo");
  if (!meminfo) return fail(meminfo.error());
  const auto memory = parse_memory(*meminfo);
  if (!memory) return fail(memory.error());
  const auto disk = sys::disk_space(disk_path_);
  if (!disk) return fail(disk.error());

  msg::HardwareData out;
  out.cpus = times->cpus;
  // Idle time may step back a little when a cpu goes away.
  if (times->total > cpu_total_ && times->idle >= cpu_idle_) {
    const double total = static_cast<double>(times->total - cpu_total_);
    const double idle = static_cast<double>(times->idle - cpu_idle_);
    out.cpu_usage = std::clamp(100.0 * (1.0 - idle / total), 0.0, 100.0);
  }
  cpu_total_ = times->total;
  cpu_idle_ = times->idle;
  out.mem = memory->total_mib;
  out.mem_usage = memory->total_mib - memory->available_mib;
  out.disk = static_cast<std::int64_t>(disk->total_bytes >> 20);
  out.disk_usage =
      static_cast<std::int64_t>((disk->total_bytes - std::min(disk->free_bytes, disk->total_bytes)) >> 20);
  return out;
}

Result<msg::NetData> HostSampler::network() const {
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return fail(errno_error("getifaddrs", errno));
  const std::unique_ptr<ifaddrs, decltype(&::freeifaddrs)> owner(list, &::freeifaddrs);
  std::map<unsigned, Interface> interfaces;  // by index: the order the kernel made them
  for (const ifaddrs* one = list; one != nullptr; one = one->ifa_next) {
    if (one->ifa_addr == nullptr || (one->ifa_flags & IFF_UP) == 0) continue;
    auto& interface = interfaces[::if_nametoindex(one->ifa_name)];
    interface.name = (one->ifa_flags & IFF_LOOPBACK) != 0 ? "lo" : one->ifa_name;
    if (one->ifa_addr->sa_family == AF_PACKET) {
      interface.mac = mac_text(*reinterpret_cast<const sockaddr_ll*>(one->ifa_addr));
    } else if (one->ifa_addr->sa_family == AF_INET || one->ifa_addr->sa_family == AF_INET6) {
      const auto address = address_text(one->ifa_addr);
      const bool better = interface.ip.empty() || address == advertise_ ||
                          (one->ifa_addr->sa_family == AF_INET &&
                           interface.ip.find(':') != std::string::npos && interface.ip != advertise_);
      if (better && !address.empty()) interface.ip = address;
    }
  }
  std::vector<Interface> found;
  for (auto& [index, interface] : interfaces) found.push_back(std::move(interface));
  return arrange(std::move(found), advertise_);
}

}  // namespace educloud::hostinfo
