#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "common/base/result.hpp"

namespace educloud {

/// A size on disk or on the wire.
struct Bytes {
  std::uint64_t count = 0;
  auto operator<=>(const Bytes&) const = default;
};

constexpr Bytes operator""_KiB(unsigned long long n) {
  return {n << 10};
}
constexpr Bytes operator""_MiB(unsigned long long n) {
  return {n << 20};
}
constexpr Bytes operator""_GiB(unsigned long long n) {
  return {n << 30};
}

/// For people: "512 B", "1.5 MiB".
std::string to_string(Bytes size);
/// "20G", "512M", "64K" or plain bytes, as qemu-img and df write them (1024-based).
/// Errors: invalid_argument.
Result<Bytes> parse_bytes(std::string_view text);

}  // namespace educloud
