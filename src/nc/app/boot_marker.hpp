#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>

#include "common/base/result.hpp"

namespace educloud::nc {

/// Since when this boot of the host is known to us, unix milliseconds: the same for as long as the host is
/// up, and larger after each reboot, whatever the clock says. Noted in `<state_dir>/boot`. `boot_id`: of the
/// running kernel, as boot_id() reads it. Errors: internal, naming the file that cannot be written.
Result<std::int64_t> note_boot(const std::filesystem::path& state_dir, std::string_view boot_id,
                               std::int64_t now_ms);

/// Source: /proc/sys/kernel/random/boot_id, new with each boot. Errors: not_found.
Result<std::string> boot_id();

}  // namespace educloud::nc
