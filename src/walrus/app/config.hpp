#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "common/config/daemon_config.hpp"

namespace educloud::walrus {

/// walrus.conf; config/walrus.conf explains every key.
struct WalrusConfig {
  config::DaemonConfig common;
  std::filesystem::path data_key_file;
  std::string convert_user;  ///< empty in the file: educloud-convert if there is one, else nobody
  std::int64_t max_image_bytes = 2ll << 40;
  std::int64_t max_virtual_bytes = 2ll << 40;
  std::int64_t reserve_bytes = 256ll << 20;
  int max_uploads = 64;
  int workers = 2;
  int upload_expiry_hours = 24;
  int sweep_interval_s = 3600;
  int sweep_grace_s = 3600;
  int max_readers = 64;
  std::string files_user = "educloud-files";  ///< to whom the shared folders are given; no such user: us
  std::filesystem::path database_template;    ///< empty: an empty ext4 file system
};

/// Errors: invalid_argument or not_found, naming file, key and rule.
Result<WalrusConfig> load_config(const std::filesystem::path& file);

/// The user qemu-img is to run as: the configured one, else the first of educloud-convert and nobody that
/// exists; "" if we are not root and cannot become anybody.
std::string choose_convert_user(const std::string& configured);

}  // namespace educloud::walrus
