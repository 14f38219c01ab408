#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "common/base/ids.hpp"
#include "common/msg/command.hpp"
#include "nc/domain/paths.hpp"
#include "nc/domain/shared_folder.hpp"

namespace educloud::nc {

/// One file of a disk's chain, named with its format so that nothing is ever probed.
struct DiskLayer {
  std::filesystem::path file;
  std::string format;   ///< qcow2 or raw
  bool is_nbd = false;  ///< `file` is a unix socket where an NBD server exports the layer as "disk"

  bool operator==(const DiskLayer&) const = default;
};

/// A disk that another host serves. Its secret is not in here: Hypervisor::set_disk_secret.
struct IscsiDisk {
  std::string host;  ///< IPv4 or IPv6 literal
  int port = 0;
  std::string iqn;
  int lun = 1;
  std::string user;

  bool operator==(const IscsiDisk&) const = default;
};

/// A disk of the guest beside c:.
struct ExtraDisk {
  enum class Kind {
    database,  ///< the server's own, written through to the cc
    data,      ///< scratch: thrown away at each start
  } kind = Kind::data;
  std::optional<IscsiDisk> iscsi = {};  ///< database by iSCSI; told by the cc when it is opened
  std::vector<DiskLayer> layers = {};   ///< data: top first; database by NBD: its socket
};

/// Everything the hypervisor needs to start one VM. All strings were checked: they may go into XML and argv.
struct VmSpec {
  InstanceId insid;  ///< also the domain's name
  TaskId tid;
  std::string cmdid;
  std::int64_t epoch = 0;  ///< of that command
  bool exclusive = false;  ///< one writer of its disk in the whole cloud: it ends with the node's lease
  std::int64_t memory_mib = 0;
  int cpus = 1;
  std::string disk_bus = "virtio";  ///< virtio, sata, ide
  std::vector<DiskLayer> disk;      ///< top (written to) first, then what it stands on
  std::vector<ExtraDisk> extra;     ///< in the order of the guest's drives: d, e
  std::filesystem::path console_log;
  std::string nic_model = "virtio-net-pci";
  std::string mac;
  std::string display_address;
  int display_port = 0;  ///< VNC; 0: none
  std::string display_password;
  std::string web_address;
  int web_port = 0;  ///< forwarded to port 80 of the guest; 0: none
  bool guest_egress = true;
  msg::Limits limits;
  std::vector<SharedFolder> folders;
  FolderProtocol folder_protocol = FolderProtocol::virtiofs;
  std::filesystem::path smb;   ///< directory of the SMB server that serves them; empty: none does
  std::filesystem::path seed;  ///< disk that tells the guest at its first boot who it is; empty: none
  bool incoming = false;       ///< it does not boot: its memory comes from another node
};

/// Period of the cpu quota. Shorter ones cost more switches, longer ones are felt.
inline constexpr std::uint64_t kCpuPeriodUs = 100'000;
/// What each of the VM's `cpus` may run in a period; nullopt: as much as it gets. Never under the floor.
std::optional<std::int64_t> cpu_quota_us(const msg::Limits& limits, int cpus);
/// cpu_weight in the kernel's unit: cgroup v2 has weights around 100, v1 shares around 1024.
std::uint64_t cpu_shares(const msg::Limits& limits, bool cgroup2);

/// What this node allows.
struct NodeLimits {
  std::int64_t max_memory_mib = 0;
  int max_cpus = 0;
  std::string advertise;  ///< IPv4 address that display and web ports are bound to
  bool guest_egress = true;
  std::uint64_t data_disk_bytes = 0;  ///< of a guest's scratch disk; 0: guests get none
};

/// Which file the VM's overlay stands on.
enum class Base {
  cached_version,  ///< images/<src>/versions/<n>/machine
  build_copy,      ///< tmp/images/<dst>/machine, an overlay of its own on the version
};
Base base_of(const TaskId& tid);
/// VD, TVD: a new overlay at each start. TMP: it is what the user builds, kept until submit or delete.
bool keeps_overlay(const InstanceId& id);

/// The disks of a run command beside c:, still without their files; c: is checked. What is not in the table
/// of the task's kind is refused. Errors: invalid_argument with key "runtime_option.disks".
Result<std::vector<ExtraDisk>> extra_disks(const msg::Command& command, const TaskId& tid,
                                           const NodeLimits& limits);
bool has_database(const VmSpec& spec);
/// Under which libvirt keeps the secret of the instance's database disk.
std::string secret_uuid(const InstanceId& id);

/// Checks a run command against the node's limits and makes the spec; the files of its disks are
/// left empty.
/// Errors: invalid_argument naming the key, exhausted (more than the node has).
Result<VmSpec> make_spec(const msg::Command& command, const TaskId& tid, const Layout& layout,
                         const NodeLimits& limits);

/// 52:54:00 and 24 bits made from the instance's id: stable over restarts.
std::string mac_of(const InstanceId& id);

}  // namespace educloud::nc
