#include "nc/cache/chunk_index.hpp"

#include <algorithm>
#include <cstring>

namespace educloud::nc {
namespace {

std::uint64_t prefix_of(const chunk::ChunkId& id) {
  std::uint64_t value = 0;
  std::memcpy(&value, id.bytes.data(), sizeof value);
  return value;
}

}  // namespace

ChunkIndex::ChunkIndex(const chunk::DiskMap& map) {
  entries_.reserve(map.groups().size() * chunk::kGroupChunks);
  for (const auto& [index, group] : map.groups()) {
    const auto first = std::uint64_t{index} * chunk::kGroupChunks;
    for (std::uint32_t i = 0; i < chunk::kGroupChunks; ++i) {
      if (!group.chunks[i].is_hole()) entries_.push_back({prefix_of(group.chunks[i]), first + i});
    }
  }
  entries_.shrink_to_fit();
  std::sort(entries_.begin(), entries_.end());
}

std::optional<std::uint64_t> ChunkIndex::find(const chunk::DiskMap& map, const chunk::ChunkId& id) const {
  const Entry wanted{prefix_of(id), 0};
  for (auto entry = std::lower_bound(entries_.begin(), entries_.end(), wanted);
       entry != entries_.end() && entry->prefix == wanted.prefix; ++entry) {
    if (map.at(entry->chunk) == id) return entry->chunk;
  }
  return std::nullopt;
}

}  // namespace educloud::nc
