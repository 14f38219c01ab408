#pragma once

#include <filesystem>
#include <string>

#include "clc/app/backups.hpp"
#include "clc/domain/boot_gate.hpp"
#include "clc/domain/planner.hpp"
#include "common/config/daemon_config.hpp"

namespace educloud::clc {

/// clc.conf. config/clc.conf is the commented example.
struct Config {
  config::DaemonConfig common;
  std::string walrus_url;
  std::filesystem::path data_key_file;
  PlacementLimits placement;
  BootGate gate;
  int display_port_first = 5900, display_port_last = 5999;
  int web_port_first = 20000, web_port_last = 20999;
  int session_hours = 12;
  int max_snapshots = 10;
  int drain_warning_s = 60, drain_idle_min = 10;
  BackupOptions backup;
};

/// clc's database in its state_dir.
std::filesystem::path database_file(const std::filesystem::path& state_dir);

/// Errors: invalid_argument naming file, key and rule.
Result<Config> load_config(const std::filesystem::path& path);

/// "5900-5999". Errors: invalid_argument naming `key`.
Result<std::pair<int, int>> parse_port_range(const std::string& text, const std::string& key);

}  // namespace educloud::clc
