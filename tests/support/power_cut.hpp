#pragma once

#include <cstdint>
#include <filesystem>
#include <random>
#include <string>

#include "support/disk_recorder.hpp"

namespace educloud::testing {

/// Which changes of names a file system may lose.
enum class NameOrder {
  journalled,  ///< the newest, as ext4, XFS and btrfs: they keep the order of all they are told
  any,         ///< any that was not followed by a sync of its folder, as POSIX allows
};

/// What a disk holds after the power has gone at some moment of a recording: what was synced, and of the
/// rest nothing, all, the beginning, or any of its writes or 512-byte sectors, as the seed says. A file's
/// sync does not keep its name, only the folder's does.
class PowerCut {
 public:
  PowerCut(const Recording& recording, NameOrder order);

  /// To the moment after the first `position` operations; moments come in their order.
  void advance(std::size_t position);
  /// Makes `into`, which must not be there, what is left.
  void leave(std::uint64_t seed, const std::filesystem::path& into) const;
  /// What is on the running machine: nothing lost. "" if `root` is the same, else the first difference: then
  /// something was done to it that the recorder does not see. -shm files are left out.
  std::string difference(const std::filesystem::path& root) const;

 private:
  struct File {
    std::string synced;
    std::vector<std::size_t> pending;
  };
  void sync(int number);
  void sync_names(int folder);
  std::string content(int number, std::mt19937_64& random, int fate) const;
  using Folders = std::map<int, std::map<std::string, int>>;
  Folders names(std::mt19937_64& random, int fate) const;
  void rename(Folders& folders, const DiskOp& op) const;

  const Recording& recording_;
  const NameOrder order_;
  std::size_t position_ = 0;
  std::map<int, File> files_;
  Folders folders_;
  std::vector<std::size_t> pending_names_;
};

}  // namespace educloud::testing
