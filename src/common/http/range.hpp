#pragma once

#include <cstdint>
#include <string_view>

namespace educloud::http {

/// What a Range header asks of a representation of a known size (RFC 9110, 14).
struct Range {
  enum class Kind {
    whole,          ///< no header, another unit, malformed, or several ranges: answer 200
    part,           ///< answer 206 with [offset, offset + length)
    unsatisfiable,  ///< answer 416
  };
  Kind kind = Kind::whole;
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
};

/// "bytes=0-99", "bytes=100-", "bytes=-50".
Range parse_range(std::string_view header, std::uint64_t size);

/// True if the list of an If-None-Match header names `etag` (given without quotes), or is "*". Weak
/// comparison.
bool etag_matches(std::string_view list, std::string_view etag);

}  // namespace educloud::http
