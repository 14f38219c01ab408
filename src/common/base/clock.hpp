#pragma once

#include <chrono>
#include <cstdint>

namespace educloud {

/// Time as the domain code sees it, so that tests and the simulator can move it by hand.
class Clock {
 public:
  virtual ~Clock() = default;
  /// Unix time in milliseconds; may jump. For time stamps people read, and for deadlines that cross hosts.
  virtual std::int64_t wall_ms() const = 0;
  /// Milliseconds since boot, suspend included (CLOCK_BOOTTIME); never jumps. For every wait on this host.
  virtual std::int64_t boot_ms() const = 0;
};

/// The machine's own clocks.
class SystemClock : public Clock {
 public:
  std::int64_t wall_ms() const override;
  std::int64_t boot_ms() const override;
};

/// Stands still until told otherwise.
class ManualClock : public Clock {
 public:
  std::int64_t wall_ms() const override { return wall_ms_; }
  std::int64_t boot_ms() const override { return boot_ms_; }
  void advance(std::chrono::milliseconds by) {
    wall_ms_ += by.count();
    boot_ms_ += by.count();
  }
  /// As when somebody sets the host's clock: the time since boot is not touched.
  void jump_wall(std::chrono::milliseconds by) { wall_ms_ += by.count(); }

 private:
  std::int64_t wall_ms_ = 1'700'000'000'000;
  std::int64_t boot_ms_ = 1'000'000;
};

}  // namespace educloud
