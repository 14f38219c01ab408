#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "common/config/daemon_config.hpp"

namespace educloud::cc {

/// /etc/educloud/cc.conf; config/cc.conf is the commented example.
struct Config {
  config::DaemonConfig common;
  std::string walrus_url;      ///< "http://walrus:8001"
  std::string walrus_ca_file;  ///< for https; empty: the system's
  std::filesystem::path data_key_file;
  std::int64_t cache_max_bytes = 100ll << 30;
  std::int64_t max_upload_bytes = 2ll << 40;
};

/// Errors: invalid_argument naming file, key and rule; not_found.
Result<Config> load_config(const std::filesystem::path& path);

}  // namespace educloud::cc
