#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "common/base/result.hpp"
#include "common/msg/command.hpp"

namespace educloud::nc {

/// A folder of walrus as a guest gets it.
struct SharedFolder {
  enum class Share { software, pub_data, prv_data } share = Share::software;
  std::string drive;  ///< one letter, d to z: the share's name and the file system's tag
  std::string user;   ///< of prv_data: whose it is
  bool read_only = false;
  std::filesystem::path source;  ///< on this node, once it is known to be there

  /// "space/prv-data/ann": as commands and people name it.
  std::string name() const;
};

/// How guests get their folders.
enum class FolderProtocol { virtiofs, smb };

/// Accepts exactly space/software, space/pub-data and space/prv-data/<user>, each drive once. A user is
/// [a-z][a-z0-9._-]{0,31}, so nothing in a path leads elsewhere.
/// Errors: invalid_argument with key "runtime_option.folders".
Result<std::vector<SharedFolder>> parse_folders(const std::vector<msg::Folder>& folders);

/// smbd's configuration for the folders of one guest: it serves one connection on its standard input, as
/// `account`, and keeps what it needs in `state`.
std::string smb_config(const std::vector<SharedFolder>& folders, const std::filesystem::path& state,
                       const std::string& account);

/// True if a path may stand in smb.conf and on QEMU's command line: [A-Za-z0-9/._-].
bool is_plain_path(const std::filesystem::path& path);

}  // namespace educloud::nc
