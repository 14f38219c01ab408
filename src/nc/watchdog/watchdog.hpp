#pragma once

#include <sys/types.h>

#include <condition_variable>
#include <filesystem>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "common/base/clock.hpp"
#include "common/base/ids.hpp"
#include "common/base/result.hpp"

namespace educloud::nc {

/// Ends the VMs with an exclusive disk when the node's lease has run out and nc itself did not: it is wedged,
/// stopped or gone. It knows only the files that nc leaves in its state directory, and holds nothing that nc
/// or libvirtd could hold up.
class Watchdog {
 public:
  /// Later than nc, which does it more gently; sooner than clc starts anything elsewhere.
  static constexpr std::int64_t kExpiredMs = 50'000;

  struct Options {
    std::filesystem::path state_dir;
    std::filesystem::path proc = "/proc";
  };
  /// `destroy` asks libvirt; it must return within some seconds. What still runs after it is killed.
  using Destroy = std::function<Result<>(const InstanceId&)>;
  Watchdog(Options options, Destroy destroy, const Clock& clock)
      : options_(std::move(options)), destroy_(std::move(destroy)), clock_(clock), since_(clock.boot_ms()) {}
  ~Watchdog() { stop(); }

  /// One look; returns how many VMs had to be ended.
  int tick();
  /// Looks once a second in a thread.
  void start();
  void stop();

 private:
  std::int64_t age_ms() const;
  void end(const InstanceId& insid);

  const Options options_;
  const Destroy destroy_;
  const Clock& clock_;
  const std::int64_t since_;  ///< boot_ms of our start: without a lease file the node gets its time from then
  std::jthread thread_;
};

/// Processes of QEMU that run the VM `insid` (libvirt's name for it), by their command lines.
std::vector<pid_t> qemu_processes(const std::filesystem::path& proc, const InstanceId& insid);

/// virsh destroy, given up after 10 s.
Result<> virsh_destroy(const std::string& uri, const InstanceId& insid);

}  // namespace educloud::nc
