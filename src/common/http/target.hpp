#pragma once

#include <map>
#include <string>
#include <string_view>

#include "common/base/result.hpp"

namespace educloud::http {

/// A request target, decoded.
struct Target {
  std::string path;                          ///< begins with '/'
  std::map<std::string, std::string> query;  ///< the last of a repeated key
};

inline constexpr std::size_t kMaxTargetBytes = 8 * 1024;
inline constexpr std::size_t kMaxQueryKeys = 64;

/// Decodes "%41" to "A"; with `plus_is_space` also "+" (as forms write a query).
/// Errors: invalid_argument for a broken escape, and for any control character in the result.
Result<std::string> percent_decode(std::string_view text, bool plus_is_space);

/// Splits and decodes an origin-form ("/a?b=c") or absolute-form ("http://host/a") target.
/// Errors: invalid_argument for a broken escape, a control character, "//", a "." or ".." segment, an
/// escaped '/' (a segment must not turn into two), too many keys; too_large.
Result<Target> parse_target(std::string_view text);

}  // namespace educloud::http
