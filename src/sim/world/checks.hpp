#pragma once

#include <map>
#include <optional>

#include "sim/world/world.hpp"

namespace educloud::sim {

/// The properties. Whatever is wrong goes to the world's defect.
class Checks {
 public:
  explicit Checks(World& world) : world_(world) {}

  /// Holds at every moment.
  void now();
  /// The part of it that is about VMs: also called whenever one has just started.
  void look_at_nodes();
  /// From now on faults are over: what they excused must end within its time.
  void healed() { healed_at_ = world_.timeline.now_ms(); }
  /// What still differs from the model: what users asked for, on the nodes and in clc. Empty: nothing.
  std::string difference();
  /// What is left of anything, once users are gone. Empty: nothing.
  std::string leftovers();
  /// Every version clc knows is at walrus, nothing was dead-lettered without cause.
  void at_the_end();

 private:
  void look_at_clc();
  World& world_;
  std::map<std::string, std::int64_t> twice_since_;
  std::optional<std::int64_t> healed_at_;
};

}  // namespace educloud::sim
