#pragma once

#include "sim/world/world.hpp"

namespace educloud::sim {

/// What goes wrong in a run. Each seed has only some of the kinds, so that rare combinations get room.
class Chaos {
 public:
  Chaos(World& world, std::uint64_t seed);

  /// Begins to plan faults.
  void begin();
  /// Everything works again: hosts are up, cables are in.
  void end();
  /// What it did, by `kFaults`.
  FaultCounts counts() const;

 private:
  /// In the order of `kFaults`.
  enum class Kind { kill, reboot, broker, wipe, block, cut, hang_up, unbind, guest, clock, pause };
  void count(Kind kind) { ++counts_.at(static_cast<std::size_t>(kind)); }
  void next();
  void strike(Kind kind);
  void plan_restart(Host& host);
  std::string any_user();
  void pause_one();

  World& world_;
  Rng rng_;
  Life life_ = new_life();
  std::vector<Kind> kinds_;
  std::int64_t pause_ms_ = 10'000;  ///< between two faults, at most
  double crash_chance_ = 0;
  FaultCounts counts_{};
};

}  // namespace educloud::sim
