#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.hpp"

namespace educloud::chunk {

/// A disk is cut at multiples of this, in bytes: also the cluster of the qcow2 files we make, so that what a
/// guest changed is exactly a set of chunks. The last chunk of a disk may be shorter.
inline constexpr std::uint32_t kChunkBytes = 64 * 1024;
/// Chunks of one group: 4 MiB of disk.
inline constexpr std::uint32_t kGroupChunks = 64;
inline constexpr std::uint64_t kGroupBytes = std::uint64_t{kChunkBytes} * kGroupChunks;
/// Largest disk.
inline constexpr std::uint64_t kMaxDiskBytes = std::uint64_t{16} << 40;

/// Identity of a chunk: SHA-256 of its bytes. All zero bits stand for "a hole", never for content.
struct ChunkId {
  static constexpr std::size_t kBytes = 32;
  std::array<std::uint8_t, kBytes> bytes{};

  bool is_hole() const { return *this == ChunkId{}; }
  /// 64 lower-case hex digits.
  std::string hex() const;
  /// Errors: invalid_argument unless exactly 64 lower-case hex digits.
  static Result<ChunkId> parse(std::string_view hex);
  /// SHA-256 of `data` (OpenSSL EVP, SHA-NI where the CPU has it).
  static ChunkId of(std::span<const char> data);

  auto operator<=>(const ChunkId&) const = default;
};

/// Ids are digests, so any of their bytes are as good as a hash.
struct ChunkIdHash {
  std::size_t operator()(const ChunkId& id) const {
    std::size_t value = 0;
    std::memcpy(&value, id.bytes.data(), sizeof value);
    return value;
  }
};

/// Ids one after the other, 32 bytes each: the body of chunks:fetch and chunks:missing.
std::string encode_ids(std::span<const ChunkId> ids);
/// Errors: invalid_argument (length is no multiple of 32, more than `max`, or a hole among them).
Result<std::vector<ChunkId>> decode_ids(std::string_view text, std::size_t max);

}  // namespace educloud::chunk
