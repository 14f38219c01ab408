#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/chunk/manifest.hpp"

namespace educloud::nc {

/// How a version's file is made.
enum class TargetKind : std::uint8_t {
  sparse = 0,  ///< a new sparse raw file
  clone = 1,   ///< a raw file that shares its blocks with the base (FICLONE), changed chunks written over
  delta = 2,   ///< a qcow2 file on top of the base, which holds only what changed
};

/// A version on this node that another one may be made from.
struct BaseVersion {
  std::string image;
  int version = 0;
  std::string digest;
  std::string format;      ///< of its file: raw or qcow2
  std::size_t layers = 1;  ///< files of its chain
  std::string key() const { return image + "/" + std::to_string(version); }
  bool operator==(const BaseVersion&) const = default;
};

/// Bits of chunks, one word per group (kGroupChunks is 64).
using ChunkBits = std::vector<std::uint64_t>;
inline bool has_bit(const ChunkBits& bits, std::uint64_t chunk) {
  return (bits[chunk / 64] >> (chunk % 64) & 1) != 0;
}
inline void set_bit(ChunkBits& bits, std::uint64_t chunk) {
  bits[chunk / 64] |= std::uint64_t{1} << (chunk % 64);
}

/// Where each chunk of a disk comes from. Pure: the same maps give the same plan, which a fill that goes on
/// after a restart relies on.
struct FillPlan {
  struct Copy {
    std::uint64_t chunk = 0;
    std::uint64_t from = 0;  ///< chunk of the base with the same content
  };
  struct Repeat {
    std::uint64_t chunk = 0;
    std::uint64_t of = 0;  ///< a fetched chunk with the same content
  };
  TargetKind kind = TargetKind::sparse;
  std::uint64_t disk_bytes = 0;
  std::vector<std::uint64_t> data;   ///< chunks written into the file, rising: fetched, copies and repeats
  std::vector<std::uint64_t> zeros;  ///< holes where the base has data, rising (clone, delta)
  std::vector<std::uint64_t> fetch;  ///< rising; each content once
  std::vector<Copy> copies;          ///< by chunk
  std::vector<Repeat> repeats;       ///< by `of`, then chunk
  std::uint64_t fetch_bytes = 0;

  /// Says whether a file begun under another plan can be gone on with.
  std::uint64_t fingerprint() const;
};

/// `base`: null to make a file of its own. `base_map` belongs to it.
FillPlan make_plan(const chunk::DiskMap& wanted, const chunk::DiskMap* base_map, TargetKind kind);

/// Which kind suits: clone if it can be, delta if less than half of the data is written and the chain stays
/// bounded, else sparse.
TargetKind choose_kind(const chunk::DiskMap& wanted, const BaseVersion& base, const chunk::DiskMap& base_map,
                       bool can_clone);
/// Files of a chain, at most; beyond it a delta is not made (max_layers flattens long before).
inline constexpr std::size_t kMaxChain = 8;

/// Groups that are the same in both.
std::size_t groups_in_common(const chunk::Manifest& a, const chunk::Manifest& b);

}  // namespace educloud::nc
