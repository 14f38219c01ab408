#pragma once

#include <cstdint>

#include "clc/domain/types.hpp"

namespace educloud::clc {

/// How many VMs may boot on a node at once: a class that comes in boots one after the other fast, and all
/// together slowly. A boot takes a slot from the moment its image/run is queued until the VM runs, and never
/// for longer than `slot_ms`: a VM that does not come up holds nobody up.
struct BootGate {
  int max_parallel = 40;
  std::int64_t slot_ms = 30'000;
  static constexpr std::int64_t kPatienceMs = 30 * 60'000;  ///< of a task in the queue
};

/// What stands at a node's gate.
struct AtGate {
  int booting = 0;  ///< that hold a slot
  int waiting = 0;
};

/// How many of those that wait may start now.
int to_open(const BootGate& gate, const AtGate& at);

/// True if a boot whose image/run was queued at `queued_at` (unix ms) and is not answered holds a slot. One
/// from the future was queued before the clock was set back.
bool holds_slot(const BootGate& gate, std::int64_t queued_at, std::int64_t now_ms);

}  // namespace educloud::clc
