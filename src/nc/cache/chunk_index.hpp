#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "common/chunk/manifest.hpp"

namespace educloud::nc {

/// Where in a disk a chunk's bytes are: id -> lowest position. 16 bytes per chunk that is no hole; the map
/// itself is asked to tell equal prefixes apart, so it must be the one given at construction, unchanged.
class ChunkIndex {
 public:
  explicit ChunkIndex(const chunk::DiskMap& map);
  std::optional<std::uint64_t> find(const chunk::DiskMap& map, const chunk::ChunkId& id) const;

 private:
  struct Entry {
    std::uint64_t prefix = 0;
    std::uint64_t chunk = 0;
    auto operator<=>(const Entry&) const = default;
  };
  std::vector<Entry> entries_;  ///< sorted
};

}  // namespace educloud::nc
