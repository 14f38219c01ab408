#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "common/chunk/chunk_id.hpp"

namespace educloud::chunk {

/// What 4 MiB of a disk consist of. Encoded: 8 bytes bitmap (little endian, bit i: chunk i is no hole), then
/// the ids of those chunks in order. The encoding is itself kept and sent as a chunk; its SHA-256 is the
/// group's id. A group of holes only does not exist.
struct Group {
  std::array<ChunkId, kGroupChunks> chunks{};

  std::string encode() const;
  /// `chunk_count`: how many chunks the disk has in this group (1..64); a bit beyond is refused.
  /// Errors: corrupt (length does not fit the bitmap, nothing but holes, a bit beyond the disk).
  static Result<Group> decode(std::span<const char> data, std::uint32_t chunk_count);
  bool is_empty() const;
  bool operator==(const Group&) const = default;
};
inline constexpr std::size_t kMaxGroupBytes = 8 + std::size_t{kGroupChunks} * ChunkId::kBytes;

struct GroupRef {
  std::uint32_t index = 0;
  ChunkId id;
  bool operator==(const GroupRef&) const = default;
};

/// The upper level: which groups a disk consists of. Its SHA-256 is the version's digest, which clc keeps.
/// Encoded, little endian: "EDM1", digest algorithm 1 = SHA-256 (1 byte), 3 bytes zero, disk_bytes u64,
/// data_bytes u64, count u32, 4 bytes zero; then count times {index u32, id 32 bytes}, index rising.
struct Manifest {
  std::uint64_t disk_bytes = 0;  ///< of the guest's disk; 0 is a disk of no bytes
  std::uint64_t data_bytes =
      0;  ///< sum of the chunks that are no holes; proven only once all groups are known
  std::vector<GroupRef> groups;

  std::string encode() const;
  /// Errors: corrupt (magic, algorithm, length, order, a group twice or beyond the disk, data_bytes more than
  /// the groups can hold), too_large.
  static Result<Manifest> decode(std::span<const char> data);
  ChunkId digest() const;
  bool operator==(const Manifest&) const = default;
};
inline constexpr std::size_t kMaxManifestBytes = 64u << 20;

std::uint64_t chunk_count(std::uint64_t disk_bytes);
std::uint32_t group_count(std::uint64_t disk_bytes);
/// Chunks of group `index`, 0 beyond the disk.
std::uint32_t chunks_in_group(std::uint64_t disk_bytes, std::uint32_t index);
/// Bytes of chunk `index`: kChunkBytes, or less for the last.
std::uint32_t chunk_length(std::uint64_t disk_bytes, std::uint64_t index);

/// Manifest and groups together: which chunk is where. Memory: 2 KiB per group that holds data (1 MB for 2
/// GiB of data). Not thread-safe while it is changed.
class DiskMap {
 public:
  explicit DiskMap(std::uint64_t disk_bytes = 0) : disk_bytes_(disk_bytes) {}

  std::uint64_t disk_bytes() const { return disk_bytes_; }
  /// The hole id where there is nothing.
  ChunkId at(std::uint64_t chunk) const;
  /// `id` may be the hole's. Beyond the disk: nothing happens.
  void set(std::uint64_t chunk, const ChunkId& id);
  std::uint64_t data_bytes() const;
  std::uint64_t data_chunks() const;
  const std::map<std::uint32_t, Group>& groups() const { return groups_; }
  /// Adds a group read from somewhere. Errors: corrupt (beyond the disk, there already, not what decode()
  /// takes).
  Result<> add_group(std::uint32_t index, std::span<const char> encoded);
  Manifest manifest() const;

  /// Everything in one text, for a file beside the disk: the manifest's length (u32), the manifest, then each
  /// group as length (u32) and encoding.
  std::string serialize() const;
  /// Checks every group against the manifest. Errors: corrupt.
  static Result<DiskMap> deserialize(std::span<const char> data);

  /// Groups of `wanted` that are not the same here: what must be read from elsewhere. Sorted.
  std::vector<GroupRef> groups_differing(const Manifest& wanted) const;
  /// Chunks of this disk that are not the same in `base`, rising; holes where `base` has data included. Where
  /// `base` has ended it counts as holes.
  std::vector<std::uint64_t> chunks_differing(const DiskMap& base) const;

 private:
  std::uint64_t disk_bytes_;
  std::map<std::uint32_t, Group> groups_;  ///< none is empty
};

}  // namespace educloud::chunk
