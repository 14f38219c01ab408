#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "common/base/ids.hpp"
#include "common/base/result.hpp"

namespace educloud::cc {

/// A disk that whoever has its key may reach.
struct NbdTarget {
  InstanceId instance;
  std::filesystem::path file;  ///< raw
  std::string key;             ///< TLS PSK, 64 hex digits; of the user NbdTargets::kUser
  int port = 0;                ///< 0: any that is free

  bool operator==(const NbdTarget&) const = default;
};

/// Disks over NBD with TLS, for hostile networks: a qemu-nbd each, started again whenever it ends, killed
/// with us. What a client was told is written is on the disk. The export is named as the instance.
/// Thread-safe; all members block.
class NbdTargets {
 public:
  struct Options {
    std::string listen = "127.0.0.1";
    int first_port = 10900;
    int ports = 100;                ///< as many disks at most
    std::filesystem::path run_dir;  ///< for the keys, each in a folder of its own
  };
  static constexpr const char* kUser = "educloud";

  explicit NbdTargets(Options options) : options_(std::move(options)) {}
  ~NbdTargets() { stop(); }
  NbdTargets(const NbdTargets&) = delete;
  NbdTargets& operator=(const NbdTargets&) = delete;

  /// Serves it and returns its port. Idempotent for the same target; conflict if another is open for the
  /// instance. Errors: exhausted (no port is free), unavailable, cancelled.
  Result<int> open(const NbdTarget& target);
  /// Nobody reaches the file any more when it returns. Idempotent.
  void close(const InstanceId& instance);
  bool is_open(const InstanceId& instance) const;
  /// Ends all of them. Idempotent.
  void stop();

 private:
  struct Served {
    NbdTarget target;
    std::string last_error;  ///< of its program; under mutex_
    std::jthread thread;
  };

  std::filesystem::path folder(const InstanceId& instance) const;
  // These are called with control_mutex_ held.
  Result<int> choose_port() const;
  bool end(const InstanceId& instance);
  Result<> keep_key(const NbdTarget& target) const;
  void serve(Served& served, const std::stop_token& stop);
  Result<> await_ready(const Served& served) const;
  bool answers(int port) const;

  const Options options_;
  std::mutex control_mutex_;  ///< one change at a time; taken before mutex_
  mutable std::mutex mutex_;
  std::map<InstanceId, std::unique_ptr<Served>> served_;  // changed under both
  bool stopped_ = false;                                  // under control_mutex_
};

}  // namespace educloud::cc
