#pragma once

#include <chrono>
#include <filesystem>
#include <mutex>
#include <stop_token>
#include <string>
#include <thread>

#include "common/base/result.hpp"

namespace educloud::share {

/// A folder of an SFTP server, mounted here by sshfs and kept so. A thread of its own mounts it, looks every
/// few seconds whether it answers, and mounts it again when its sshfs is gone. sshfs is no child of ours: it
/// outlives this process, because guests have the folder open, and the next process takes it over as it is.
/// A cut link is sshfs' own affair: it answers with errors after ten seconds and connects again by itself.
///
/// Nothing here touches a file system that may be stuck but in child processes, which are left behind if they
/// do not end; nor may anybody else: see `look`.
class SftpMount {
 public:
  struct Options {
    std::string host;
    int port = 0;
    std::string user;
    std::string folder;        ///< on the server, absolute
    std::filesystem::path at;  ///< mount point, made if it is missing
    std::filesystem::path key_file;
    std::filesystem::path known_hosts_file;  ///< holds the server's key under `kHostAlias`
    /// True: seen by all processes of the host and usable by all its users; needs root. False: for ourselves.
    bool is_for_host = true;
    std::chrono::milliseconds every{5000};
    std::chrono::milliseconds patience{8000};  ///< for one look
    std::chrono::milliseconds mount_deadline{20'000};
    std::chrono::milliseconds give_up{180'000};  ///< sshfs that hangs for so long is killed
  };
  /// The name of the server in known_hosts, whatever address leads to it.
  static constexpr const char* kHostAlias = "educloud-walrus";

  explicit SftpMount(Options options) : options_(std::move(options)) {}
  ~SftpMount() { stop(); }

  void start();
  /// The mount stays. Idempotent.
  void stop();

  const std::filesystem::path& at() const { return options_.at; }
  /// Empty: it answered at the last look. Else why not, in words for an operator.
  std::string problem() const;
  bool is_healthy() const { return problem().empty(); }

 private:
  void work(const std::stop_token& stop);
  void step(const std::stop_token& stop);
  Result<> mount(const std::stop_token& stop);
  void set_problem(std::string problem);

  const Options options_;
  std::chrono::steady_clock::time_point hangs_since_{};  // of the thread
  std::chrono::milliseconds pause_{0};                   // of the thread
  mutable std::mutex mutex_;
  std::string problem_ = "not yet mounted";  // under mutex_
  std::jthread thread_;
};

/// Kind of the file at `path` ("directory", "symbolic link"), which may be on a file system that hangs: asked
/// by a child process that is left behind if it does not end within `patience`. Follows no link at the end.
/// Errors: not_found, timeout, cancelled, unavailable (it cannot be read now).
Result<std::string> look(const std::filesystem::path& path, std::chrono::milliseconds patience,
                         std::stop_token stop = {});

/// mkdir of `path` alone, mode 0700, by such a child. There already: success.
Result<> make_folder(const std::filesystem::path& path, std::chrono::milliseconds patience,
                     std::stop_token stop = {});

}  // namespace educloud::share
