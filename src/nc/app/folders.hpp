#pragma once

#include <chrono>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>
#include <vector>

#include "common/share/shared_folders.hpp"
#include "nc/domain/vm_spec.hpp"
#include "nc/hypervisor/hypervisor.hpp"

namespace educloud::nc {

/// The folders that guests share: walrus' software, pub-data and prv-data, mounted under <prefix>/space, and
/// what each guest needs to reach its own. Thread-safe.
class Folders {
 public:
  struct Options {
    Layout layout{"/storage"};
    /// The folders themselves, where this is walrus' own host; then nothing is mounted. Empty: see `host`.
    std::filesystem::path local;
    /// No host, and no `local`: guests get no folders. One of this node's own would do for a while, and then
    /// hold what its user looks for on another.
    share::SftpServer server;
    std::chrono::milliseconds patience{20'000};  ///< of a VM's start with a folder that does not answer
  };

  Folders(Options options, Hypervisor& hypervisor);

  /// Mounts, and keeps them mounted. Returns at once.
  void start();
  /// The mounts stay: guests use them.
  void stop();

  /// Finds the folders of a VM that is about to start and makes what serves them: `source` of each, and for
  /// SMB the server's directory. A user's folder is made at its first use. Returns what its owner is to know
  /// ("; drive f is not there"), often nothing: only software may be missing, and then that drive is left
  /// out. Errors: unavailable (naming folder and remedy), invalid_argument, cancelled.
  Result<std::string> prepare(VmSpec& spec, std::stop_token stop);

  /// For the operator: which folders do not answer.
  std::vector<std::string> warnings() const;

 private:
  Result<> find(SharedFolder& folder, const std::stop_token& stop) const;
  Result<> look_once(const SharedFolder& folder, const std::stop_token& stop) const;
  bool is_set_up() const { return !options_.local.empty() || !options_.server.host.empty(); }
  bool is_mounted() const { return options_.local.empty() && !options_.server.host.empty(); }
  Result<> make_read_only(SharedFolder& folder);
  Result<> make_smb(VmSpec& spec);

  const Options options_;
  const std::filesystem::path space_;  ///< where the folders are on this host
  Hypervisor& hypervisor_;
  share::SharedFolders mounts_;
  std::mutex read_only_mutex_;
};

}  // namespace educloud::nc
