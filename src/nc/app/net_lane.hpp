#pragma once

#include <atomic>
#include <cstdint>
#include <thread>

#include "common/base/result.hpp"
#include "common/sys/file.hpp"
#include "nc/hypervisor/hypervisor.hpp"

namespace educloud::nc {

/// The frames of one VM's network card, both ways, each at no more than a rate. They come from QEMU and go
/// back to it over stream sockets, each behind its length (4 bytes, big endian), as QEMU's filter-redirector
/// has it. What does not pass yet waits, kQueueBytes at most each way; what comes then is dropped, as by any
/// router. One thread; it never keeps QEMU waiting.
class NetLane {
 public:
  /// More than the windows of some TCP connections, so that a limit alone loses nothing.
  static constexpr std::size_t kQueueBytes = 1 << 20;
  /// No frame is longer; who sends one is not understood, and that way ends.
  static constexpr std::uint32_t kMaxFrame = 128 * 1024;

  /// Errors: exhausted (no descriptors).
  static Result<std::unique_ptr<NetLane>> open(std::int64_t bits_per_s);
  ~NetLane();

  /// QEMU's ends, for Hypervisor::divert_network; to be closed once it has them.
  struct Ends {
    sys::Fd from_guest, to_net, from_net, to_guest;
    NetSockets sockets() const { return {from_guest.get(), to_net.get(), from_net.get(), to_guest.get()}; }
  };
  Ends take_ends() { return std::move(theirs_); }

  /// From now on.
  void set_rate(std::int64_t bits_per_s);
  /// QEMU has closed its ends, or does not speak as it should: no frame passes any more.
  bool is_over() const { return over_; }
  std::uint64_t dropped() const { return dropped_; }

 private:
  struct Way;
  NetLane() = default;
  void work();

  Ends theirs_;
  std::unique_ptr<Way> up_, down_;
  sys::Fd wake_;
  std::atomic<std::int64_t> bits_per_s_{0};
  std::atomic<bool> over_{false}, stopping_{false};
  std::atomic<std::uint64_t> dropped_{0};
  std::thread thread_;
};

}  // namespace educloud::nc
