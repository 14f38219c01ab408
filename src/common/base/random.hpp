#pragma once

#include <cstddef>
#include <string>

namespace educloud {

/// `byte_count` bytes of getrandom(2) as 2 x byte_count lower-case hex digits. Fit for secrets.
std::string random_hex(std::size_t byte_count);

}  // namespace educloud
