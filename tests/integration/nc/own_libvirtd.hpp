#pragma once

#include <sys/types.h>

#include <filesystem>
#include <string>

namespace educloud::nc {

/// A libvirtd of the test's own in a directory of its own and private mounts (scripts/lib/libvirtd).
class OwnLibvirtd {
 public:
  OwnLibvirtd();
  ~OwnLibvirtd();
  OwnLibvirtd(const OwnLibvirtd&) = delete;
  OwnLibvirtd& operator=(const OwnLibvirtd&) = delete;

  /// True if this machine can run it: root, libvirtd and QEMU are there.
  static bool is_possible();
  bool start();
  void kill_hard();
  std::string uri() const;
  const std::filesystem::path& directory() const { return directory_; }
  /// Process of the guest, from libvirt's own pid file; 0: none.
  pid_t guest_pid(const std::string& name) const;

 private:
  std::filesystem::path directory_;
  pid_t pid_ = -1;
};

}  // namespace educloud::nc
