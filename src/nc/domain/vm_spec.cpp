#include "nc/domain/vm_spec.hpp"

#include <arpa/inet.h>

namespace educloud::nc {
namespace {

constexpr int kLowestDisplayPort = 5900;  // libvirt takes no lower one for VNC
constexpr int kLowestWebPort = 1024;
constexpr std::int64_t kLeastQuotaUs = 1000;  // the kernel takes no less

bool is_ipv4(const std::string& text) {
  in_addr address{};
  return inet_pton(AF_INET, text.c_str(), &address) == 1;
}

bool is_mac(std::string_view text) {
  if (text.size() != 17) return false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const bool hex = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
    if (i % 3 == 2 ? c != ':' : !hex) return false;
  }
  // The first octet's lowest bit marks a multicast address: no NIC may have one.
  return text[1] % 2 == 0;
}

std::string nic_model(std::string_view type) {
  if (type == "e1000") return "e1000";
  if (type == "rtl8139") return "rtl8139";
  return "virtio-net-pci";
}

Result<> check_ports(const msg::RuntimeOption& option, const NodeLimits& limits) {
  if (option.rdp_port != 0 && option.rdp_port < kLowestDisplayPort) {
    return fail(ErrorCode::invalid_argument,
                "display port " + std::to_string(option.rdp_port) + " is below 5900",
                "runtime_option.rdp_port");
  }
  if (option.rdp_port != 0 && option.display_password.empty()) {
    return fail(ErrorCode::invalid_argument, "a display without a password is not opened",
                "runtime_option.display_password");
  }
  if (option.web_port != 0 && option.web_port < kLowestWebPort) {
    return fail(ErrorCode::invalid_argument, "web port " + std::to_string(option.web_port) + " is below 1024",
                "runtime_option.web_port");
  }
  if (option.web_port != 0 && option.web_port == option.rdp_port) {
    return fail(ErrorCode::invalid_argument, "web and display port are the same", "runtime_option.web_port");
  }
  if (!is_ipv4(limits.advertise)) {
    return fail(ErrorCode::internal, "the node's own address '" + limits.advertise +
                                         "' is not an IPv4 address; set advertise in nc.conf");
  }
  for (const unsigned char c : option.display_password) {
    if (c < 0x21 || c > 0x7e) {
      return fail(ErrorCode::invalid_argument, "the display password has a character that VNC cannot type",
                  "runtime_option.display_password");
    }
  }
  return {};
}

}  // namespace

Base base_of(const TaskId& tid) {
  return tid.is_build() ? Base::build_copy : Base::cached_version;
}

bool keeps_overlay(const InstanceId& id) {
  return kind_of(id) == InstanceKind::TMP;
}

std::string mac_of(const InstanceId& id) {
  const std::string& text = id.str();
  const std::string tail = text.substr(text.size() - 6);
  return "52:54:00:" + tail.substr(0, 2) + ":" + tail.substr(2, 2) + ":" + tail.substr(4, 2);
}

std::optional<std::int64_t> cpu_quota_us(const msg::Limits& limits, int cpus) {
  if (limits.cpu_percent == 0) return std::nullopt;
  const std::int64_t percent = std::max(limits.cpu_percent, msg::Limits::kCpuFloorPercent);
  const auto period = static_cast<std::int64_t>(kCpuPeriodUs);
  return std::max(kLeastQuotaUs, percent * period / 100 / std::max(cpus, 1));
}

std::uint64_t cpu_shares(const msg::Limits& limits, bool cgroup2) {
  const std::uint64_t weight = limits.cpu_weight == 0 ? 100 : static_cast<std::uint64_t>(limits.cpu_weight);
  return cgroup2 ? weight : std::max<std::uint64_t>(2, weight * 1024 / 100);
}

Result<VmSpec> make_spec(const msg::Command& command, const TaskId& tid, const Layout& layout,
                         const NodeLimits& limits) {
  if (!command.runtime_option) {
    return fail(ErrorCode::invalid_argument, "image/run without runtime_option", "runtime_option");
  }
  const auto& option = *command.runtime_option;
  if (option.memory_mib > limits.max_memory_mib) {
    return fail(ErrorCode::exhausted,
                "the VM wants " + std::to_string(option.memory_mib) + " MiB, this node gives at most " +
                    std::to_string(limits.max_memory_mib),
                "runtime_option.memory_mib");
  }
  if (option.cpus > limits.max_cpus) {
    return fail(ErrorCode::exhausted,
                "the VM wants " + std::to_string(option.cpus) + " cpus, this node gives at most " +
                    std::to_string(limits.max_cpus),
                "runtime_option.cpus");
  }
  auto extra = extra_disks(command, tid, limits);
  if (!extra) return fail(extra.error());
  if (auto ok = check_ports(option, limits); !ok) return fail(ok.error());
  auto folders = parse_folders(option.folders);
  if (!folders) return fail(folders.error());
  VmSpec spec;
  spec.insid = tid.instance;
  spec.tid = tid;
  spec.cmdid = command.cmdid;
  spec.epoch = command.epoch;
  spec.extra = std::move(*extra);
  spec.exclusive = has_database(spec);
  spec.memory_mib = option.memory_mib;
  spec.cpus = option.cpus;
  spec.disk_bus = option.disk_type;
  spec.console_log = layout.console(tid.instance);
  spec.mac = mac_of(tid.instance);
  if (!option.networkcards.empty()) {
    const auto& card = option.networkcards.front();
    if (!is_mac(card.nic_mac)) {
      return fail(ErrorCode::invalid_argument, "nic_mac is not aa:bb:cc:dd:ee:ff of one host, lower case",
                  "runtime_option.networkcards[0].nic_mac");
    }
    spec.nic_model = nic_model(card.nic_type);
    spec.mac = card.nic_mac;
  }
  spec.display_address = limits.advertise;
  spec.display_port = option.rdp_port;
  spec.display_password = option.display_password;
  spec.web_address = limits.advertise;
  spec.web_port = option.web_port;
  spec.guest_egress = limits.guest_egress;
  spec.folders = std::move(*folders);
  if (option.folder_protocol == "smb") spec.folder_protocol = FolderProtocol::smb;
  if (option.limits) spec.limits = *option.limits;
  return spec;
}

}  // namespace educloud::nc
