#pragma once

#include <string>
#include <string_view>

#include "common/base/result.hpp"

namespace educloud::nc {

/// The largest picture of a display that is passed on.
inline constexpr std::size_t kScreenshotBytes = 64u << 20;

/// A screenshot as libvirt gave it (PNG, or binary PPM from older ones) as PNG.
/// Errors: invalid_argument (neither), too_large.
Result<std::string> to_png(std::string picture);

}  // namespace educloud::nc
