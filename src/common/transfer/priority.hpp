#pragma once

#include <string_view>

#include "common/base/result.hpp"

namespace educloud::transfer {

/// Who waits for the bytes; smaller goes first.
enum class Priority { user = 0, prefetch = 1, replication = 2 };
std::string_view to_string(Priority priority);
/// Errors: invalid_argument.
Result<Priority> parse_priority(std::string_view text);

}  // namespace educloud::transfer
