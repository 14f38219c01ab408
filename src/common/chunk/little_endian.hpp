#pragma once

#include <bit>
#include <concepts>
#include <cstring>
#include <span>
#include <string>

// Private to common/chunk: integers as its formats hold them.
namespace educloud::chunk {

static_assert(std::endian::native == std::endian::little, "the formats are written as they lie in memory");

/// The integer at `at`; the caller made sure that it lies inside `data`.
template <std::unsigned_integral T>
T load_le(std::span<const char> data, std::size_t at) {
  T value = 0;
  std::memcpy(&value, data.data() + at, sizeof value);
  return value;
}

template <std::unsigned_integral T>
void store_le(std::span<char> out, std::size_t at, T value) {
  std::memcpy(out.data() + at, &value, sizeof value);
}

template <std::unsigned_integral T>
void append_le(std::string& out, T value) {
  char bytes[sizeof value];
  std::memcpy(bytes, &value, sizeof value);
  out.append(bytes, sizeof value);
}

}  // namespace educloud::chunk
