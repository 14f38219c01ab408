#include "clc/domain/boot_gate.hpp"

#include <algorithm>

namespace educloud::clc {

int to_open(const BootGate& gate, const AtGate& at) {
  return std::clamp(gate.max_parallel - at.booting, 0, at.waiting);
}

bool holds_slot(const BootGate& gate, std::int64_t queued_at, std::int64_t now_ms) {
  return queued_at <= now_ms && now_ms - queued_at < gate.slot_ms;
}

}  // namespace educloud::clc
