#pragma once

#include <chrono>
#include <string_view>

#include "common/base/result.hpp"

namespace educloud::nc {

/// Boots a sector of ours under QEMU with `accelerator` ("kvm"; "tcg" to check the probe itself): interrupts,
/// 64-bit mode, memory and 10^8 instructions. /dev/kvm being there proves nothing: nested or emulated KVM may
/// hang a guest at boot or run it slower than TCG. Errors: why it cannot be used (not_found, timeout,
/// unavailable).
Result<> probe_kvm(std::string_view accelerator = "kvm",
                   std::chrono::milliseconds time_limit = std::chrono::milliseconds{5000});

}  // namespace educloud::nc
