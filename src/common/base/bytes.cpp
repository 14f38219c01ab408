#include "common/base/bytes.hpp"

#include <charconv>
#include <cstdio>

namespace educloud {

std::string to_string(Bytes size) {
  if (size.count < 1024) return std::to_string(size.count) + " B";
  double value = static_cast<double>(size.count);
  const char* unit = "";
  for (const char* next : {"KiB", "MiB", "GiB", "TiB"}) {
    if (value < 1024) break;
    value /= 1024;
    unit = next;
  }
  char text[32];
  std::snprintf(text, sizeof text, "%.1f %s", value, unit);
  return text;
}

Result<Bytes> parse_bytes(std::string_view text) {
  std::uint64_t number = 0;
  const auto [end, errc] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view suffix(end, static_cast<std::size_t>(text.data() + text.size() - end));
  int shift = 0;
  bool ok = errc == std::errc{} && suffix.size() <= 1;
  if (ok && suffix.size() == 1) {
    const auto at = std::string_view("KMGT").find(suffix[0]);
    ok = at != std::string_view::npos;
    if (ok) shift = 10 * (static_cast<int>(at) + 1);
  }
  if (!ok || (shift > 0 && number >> (64 - shift) != 0)) {
    return fail(ErrorCode::invalid_argument,
                "size '" + std::string(text.substr(0, 40)) + "' is not a number with K, M, G or T");
  }
  return Bytes{number << shift};
}

}  // namespace educloud
