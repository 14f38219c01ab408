#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "common/base/result.hpp"

namespace educloud::share {

/// A line of the calling thread's mount table.
struct Mount {
  std::filesystem::path at;
  std::string device;       ///< "0:52": the file system's number
  std::string type;         ///< ext4, fuse.sshfs
  bool is_deleted = false;  ///< the folder that is mounted was deleted; a new one of its name is another
};

/// What is mounted exactly at `at`, the topmost of several; nullopt: nothing. Reads the kernel's table and
/// touches no file system, so it answers however stuck that is.
std::optional<Mount> mount_at(const std::filesystem::path& at);

/// The number of the file system that `path` is on, by the table alone. `path` has no symbolic link in it.
std::string device_of(const std::filesystem::path& path);

/// Takes what is mounted at `at` out of the tree, however stuck; who has it open keeps it. Nothing there:
/// success.
Result<> detach(const std::filesystem::path& at);

/// Mounts `source` once more at `target`, read-only; makes `target`. There already with the same file system
/// and not deleted since: success, nothing changes. Needs root.
Result<> bind_read_only(const std::filesystem::path& source, const std::filesystem::path& target);

/// The calling thread sees and changes the mounts of the host's first process from now on: a daemon whose
/// unit gives it a mount namespace would else mount for itself alone. Nothing to do where they are the same,
/// or out of reach. For threads of our own only. Errors: permission_denied (not root).
Result<> enter_host_mounts();

/// Runs `work` in a thread that has entered them.
Result<> in_host_mounts(const std::function<Result<>()>& work);

}  // namespace educloud::share
