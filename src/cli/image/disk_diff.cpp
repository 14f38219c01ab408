#include "cli/image/disk_diff.hpp"

namespace educloud::cli {
namespace {

chunk::ChunkId at(const chunk::DiskMap& map, std::uint64_t index) {
  return index < chunk::chunk_count(map.disk_bytes()) ? map.at(index) : chunk::ChunkId{};
}

/// Data of `map` in chunks from `first` on.
std::uint64_t data_from(const chunk::DiskMap& map, std::uint64_t first) {
  std::uint64_t bytes = 0;
  for (auto group = map.groups().lower_bound(static_cast<std::uint32_t>(first / chunk::kGroupChunks));
       group != map.groups().end(); ++group) {
    for (std::uint32_t i = 0; i < chunk::kGroupChunks; ++i) {
      const std::uint64_t index = std::uint64_t{group->first} * chunk::kGroupChunks + i;
      if (index >= first && !group->second.chunks[i].is_hole())
        bytes += chunk::chunk_length(map.disk_bytes(), index);
    }
  }
  return bytes;
}

}  // namespace

DiskDiff diff_disks(const chunk::DiskMap& a, const chunk::DiskMap& b) {
  DiskDiff out;
  for (const std::uint64_t index : b.chunks_differing(a)) {
    const bool was = !at(a, index).is_hole(), is = !at(b, index).is_hole();
    if (is) {
      (was ? out.changed_bytes : out.added_bytes) += chunk::chunk_length(b.disk_bytes(), index);
    } else if (was) {
      out.removed_bytes += chunk::chunk_length(a.disk_bytes(), index);
    }
  }
  out.removed_bytes += data_from(a, chunk::chunk_count(b.disk_bytes()));
  out.same_bytes = b.data_bytes() - out.changed_bytes - out.added_bytes;
  return out;
}

}  // namespace educloud::cli
