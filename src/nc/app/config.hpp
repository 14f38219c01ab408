#pragma once

#include <filesystem>
#include <string>

#include "common/config/daemon_config.hpp"
#include "common/share/shared_folders.hpp"

namespace educloud::nc {

/// nc.conf.
struct Config {
  config::DaemonConfig common;
  std::string cc_url;                   ///< of the cluster's cc: images come from and go to there
  std::string cc_ca_file;               ///< certificate authority of an https cc_url; empty: the system's
  std::filesystem::path node_key_file;  ///< HMAC-SHA256(data_key, "node:<host>"), 64 hex digits, 0600
  std::string hypervisor = "libvirt";   ///< libvirt, fake
  std::string libvirt_uri = "qemu:///system";
  std::string accel = "auto";  ///< auto, kvm, tcg
  bool guest_egress = true;
  int stop_grace_s = 60;                    ///< from the power button to the plug
  int max_memory_mib = 0;                   ///< of one VM; 0: the host's memory less reserve_mib
  int max_cpus = 0;                         ///< of one VM; 0: the host's
  int data_disk_gib = 10;                   ///< of a guest's scratch disk; 0: guests get none
  int reserve_mib = 1024;                   ///< memory that guests do not get
  int min_free_disk_mib = 1024;             ///< stays free under the prefix
  int connections = 4;                      ///< to the cc, of one transfer
  int max_transfers = 2;                    ///< images that arrive at once
  int frame_cache_mib = 64;                 ///< of what arrived lately, kept in memory for neighbours
  bool peers = true;                        ///< ask neighbours and serve them
  std::string qemu_group = "libvirt-qemu";  ///< QEMU's user is in it; empty: QEMU runs as we do
  int console_limit_kib = 4096;             ///< of a console log, before its older part goes

  std::filesystem::path folders_local;  ///< where this is walrus' own host; empty: see folders_host
  share::SftpServer folders;            ///< walrus', or the cc's way to it; no host: no mounts

  std::string exchange = "cc_status";
  std::string queue() const { return "nc_cmd_queue." + common.host; }
  std::string lease_queue() const { return "nc_lease_queue." + common.host; }
  std::string task_key() const { return "taskstatus.nc-" + common.host; }
  std::string node_key() const { return "nodestatus.nc-" + common.host; }
};

/// Errors: invalid_argument naming file, key and rule.
Result<Config> load_config(const std::filesystem::path& file);

}  // namespace educloud::nc
