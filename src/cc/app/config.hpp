#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "cc/domain/uplink_limit.hpp"
#include "common/config/daemon_config.hpp"

namespace educloud::cc {

/// /etc/educloud/cc.conf; config/cc.conf is the commented example.
struct Config {
  config::DaemonConfig common;
  config::BrokerConfig cluster_broker;  ///< where the nodes are; `common.broker` unless told otherwise
  std::string walrus_url;               ///< "http://walrus:8001"
  std::string walrus_ca_file;           ///< for https; empty: the system's
  std::filesystem::path data_key_file;
  std::int64_t cache_bytes = 100ll << 30;  ///< of chunks on disk
  bool peers = true;                       ///< nodes may take chunks from each other
  int connections = 4;                     ///< to walrus
  int max_node_transfers = 64;             ///< requests of nodes answered at once
  std::vector<UplinkWindow> uplink;        ///< outside of them: no limit
  std::string folders_walrus_host;         ///< walrus' SFTP server, which nodes reach through us; empty: not
  int folders_walrus_port = 8022;
  bool folders_mount = false;  ///< mount them here too
  std::string folders_user = "educloud-files";
  std::filesystem::path folders_key_file, folders_known_hosts_file;
  int folders_port = 8022;  ///< where they do, at `common.listen`
  int iscsi_port = 3261;    ///< of the database disks' targets, at `common.listen`
  int nbd_port = 10900;     ///< the first of those over NBD, one each
  int nbd_ports = 100;
};

/// Errors: invalid_argument naming file, key and rule; not_found.
Result<Config> load_config(const std::filesystem::path& path);

}  // namespace educloud::cc
