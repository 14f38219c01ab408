#include "common/chunk/manifest.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string_view>

#include "common/chunk/little_endian.hpp"

namespace educloud::chunk {
namespace {

constexpr std::string_view kMagic = "EDM1";
constexpr std::uint32_t kSha256 = 1;
constexpr std::size_t kHeaderBytes = 32;
constexpr std::size_t kRefBytes = 4 + ChunkId::kBytes;

tl::unexpected<Error> bad_manifest(const std::string& why) {
  return fail(ErrorCode::corrupt, "manifest refused: " + why);
}

tl::unexpected<Error> bad_group(const std::string& why) {
  return fail(ErrorCode::corrupt, "group of chunks refused: " + why);
}

std::string_view as_text(const ChunkId& id) {
  return {reinterpret_cast<const char*>(id.bytes.data()), id.bytes.size()};
}

ChunkId load_id(std::span<const char> data, std::size_t at) {
  ChunkId id;
  std::memcpy(id.bytes.data(), data.data() + at, ChunkId::kBytes);
  return id;
}

/// Bytes of the disk that group `index` covers.
std::uint64_t group_length(std::uint64_t disk_bytes, std::uint32_t index) {
  const auto start = index * kGroupBytes;
  return start >= disk_bytes ? 0 : std::min(kGroupBytes, disk_bytes - start);
}

/// Bytes of data in `group`, where the disk's last chunk may be short.
std::uint64_t group_data_bytes(std::uint64_t disk_bytes, std::uint32_t index, const Group& group) {
  std::uint64_t sum = 0;
  for (std::uint32_t i = 0; i < kGroupChunks; ++i) {
    if (!group.chunks[i].is_hole()) sum += chunk_length(disk_bytes, std::uint64_t{index} * kGroupChunks + i);
  }
  return sum;
}

/// Each group holds at least one chunk and at most what the disk has there.
Result<> check_data_bytes(const Manifest& manifest) {
  std::uint64_t least = 0, most = 0;
  for (const auto& ref : manifest.groups) {
    const auto length = group_length(manifest.disk_bytes, ref.index);
    const auto tail = length % kChunkBytes;
    least += tail != 0 ? tail : kChunkBytes;
    most += length;
  }
  if (manifest.data_bytes >= least && manifest.data_bytes <= most) return {};
  return bad_manifest("data_bytes " + std::to_string(manifest.data_bytes) + " does not fit its " +
                      std::to_string(manifest.groups.size()) + " groups, which hold " +
                      std::to_string(least) + ".." + std::to_string(most));
}

}  // namespace

std::string Group::encode() const {
  std::string out(sizeof(std::uint64_t), '\0');
  std::uint64_t bitmap = 0;
  for (std::uint32_t i = 0; i < kGroupChunks; ++i) {
    if (chunks[i].is_hole()) continue;
    bitmap |= std::uint64_t{1} << i;
    out += as_text(chunks[i]);
  }
  store_le(out, 0, bitmap);
  return out;
}

Result<Group> Group::decode(std::span<const char> data, std::uint32_t chunk_count) {
  if (data.size() < sizeof(std::uint64_t)) return bad_group("it ends inside its bitmap");
  const auto bitmap = load_le<std::uint64_t>(data, 0);
  if (bitmap == 0) return bad_group("it has nothing but holes");
  if (chunk_count < kGroupChunks && (bitmap >> chunk_count) != 0) {
    return bad_group("it has a chunk beyond the disk, which has " + std::to_string(chunk_count) + " there");
  }
  const auto count = static_cast<std::size_t>(std::popcount(bitmap));
  if (data.size() != sizeof bitmap + count * ChunkId::kBytes) {
    return bad_group(std::to_string(data.size()) + " bytes do not fit a bitmap of " + std::to_string(count) +
                     " chunks");
  }
  Group group;
  std::size_t at = sizeof bitmap;
  for (std::uint32_t i = 0; i < kGroupChunks; ++i) {
    if (((bitmap >> i) & 1) == 0) continue;
    group.chunks[i] = load_id(data, at);
    // The bitmap is the only way to say hole: two encodings of one content would have two ids.
    if (group.chunks[i].is_hole()) return bad_group("chunk " + std::to_string(i) + " has the id of a hole");
    at += ChunkId::kBytes;
  }
  return group;
}

bool Group::is_empty() const {
  return std::ranges::all_of(chunks, [](const ChunkId& id) { return id.is_hole(); });
}

std::string Manifest::encode() const {
  std::string out;
  out.reserve(kHeaderBytes + groups.size() * kRefBytes);
  out += kMagic;
  append_le(out, kSha256);
  append_le(out, disk_bytes);
  append_le(out, data_bytes);
  append_le(out, static_cast<std::uint32_t>(groups.size()));
  append_le(out, std::uint32_t{0});
  for (const auto& ref : groups) {
    append_le(out, ref.index);
    out += as_text(ref.id);
  }
  return out;
}

Result<Manifest> Manifest::decode(std::span<const char> data) {
  if (data.size() > kMaxManifestBytes) {
    return fail(ErrorCode::too_large, "a manifest of " + std::to_string(data.size()) +
                                          " bytes, the limit is " + std::to_string(kMaxManifestBytes));
  }
  if (data.size() < kHeaderBytes) return bad_manifest("it ends inside its header");
  if (std::memcmp(data.data(), kMagic.data(), kMagic.size()) != 0) {
    return bad_manifest("it does not begin with EDM1");
  }
  if (const auto algorithm = load_le<std::uint32_t>(data, 4); algorithm != kSha256) {
    return bad_manifest("digest algorithm and reserved bytes are " + std::to_string(algorithm) +
                        ", not 1 (SHA-256)");
  }
  Manifest manifest;
  manifest.disk_bytes = load_le<std::uint64_t>(data, 8);
  manifest.data_bytes = load_le<std::uint64_t>(data, 16);
  const auto count = load_le<std::uint32_t>(data, 24);
  if (load_le<std::uint32_t>(data, 28) != 0) return bad_manifest("its reserved bytes are not zero");
  if (manifest.disk_bytes > kMaxDiskBytes) {
    return fail(ErrorCode::too_large, "a manifest of a disk of " + std::to_string(manifest.disk_bytes) +
                                          " bytes, the limit is " + std::to_string(kMaxDiskBytes));
  }
  // Before anything is allocated by what the header says.
  if (data.size() != kHeaderBytes + std::uint64_t{count} * kRefBytes) {
    return bad_manifest(std::to_string(data.size()) + " bytes do not fit " + std::to_string(count) +
                        " groups");
  }
  const auto limit = group_count(manifest.disk_bytes);
  manifest.groups.reserve(count);
  for (std::size_t at = kHeaderBytes; at < data.size(); at += kRefBytes) {
    const GroupRef ref{load_le<std::uint32_t>(data, at), load_id(data, at + 4)};
    const auto name = "group " + std::to_string(ref.index);
    if (ref.index >= limit) return bad_manifest(name + " is beyond the disk's " + std::to_string(limit));
    if (!manifest.groups.empty() && ref.index <= manifest.groups.back().index) {
      return bad_manifest(name + " comes after group " + std::to_string(manifest.groups.back().index) +
                          ": they overlap or are out of order");
    }
    if (ref.id.is_hole()) return bad_manifest(name + " has the id of a hole");
    manifest.groups.push_back(ref);
  }
  if (auto ok = check_data_bytes(manifest); !ok) return fail(ok.error());
  return manifest;
}

ChunkId Manifest::digest() const {
  return ChunkId::of(encode());
}

std::uint64_t chunk_count(std::uint64_t disk_bytes) {
  return disk_bytes / kChunkBytes + (disk_bytes % kChunkBytes != 0 ? 1 : 0);
}

std::uint32_t group_count(std::uint64_t disk_bytes) {
  return static_cast<std::uint32_t>(disk_bytes / kGroupBytes + (disk_bytes % kGroupBytes != 0 ? 1 : 0));
}

std::uint32_t chunks_in_group(std::uint64_t disk_bytes, std::uint32_t index) {
  return static_cast<std::uint32_t>(chunk_count(group_length(disk_bytes, index)));
}

std::uint32_t chunk_length(std::uint64_t disk_bytes, std::uint64_t index) {
  if (index >= chunk_count(disk_bytes)) return 0;
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(kChunkBytes, disk_bytes - index * kChunkBytes));
}

ChunkId DiskMap::at(std::uint64_t chunk) const {
  if (chunk >= chunk_count(disk_bytes_)) return {};
  const auto found = groups_.find(static_cast<std::uint32_t>(chunk / kGroupChunks));
  return found == groups_.end() ? ChunkId{} : found->second.chunks[chunk % kGroupChunks];
}

void DiskMap::set(std::uint64_t chunk, const ChunkId& id) {
  // Ignored beyond the disk: a map never says more than its disk has.
  if (chunk >= chunk_count(disk_bytes_)) return;
  const auto index = static_cast<std::uint32_t>(chunk / kGroupChunks);
  if (!id.is_hole()) {
    groups_[index].chunks[chunk % kGroupChunks] = id;
    return;
  }
  const auto found = groups_.find(index);
  if (found == groups_.end()) return;
  found->second.chunks[chunk % kGroupChunks] = id;
  if (found->second.is_empty()) groups_.erase(found);
}

std::uint64_t DiskMap::data_bytes() const {
  std::uint64_t sum = 0;
  for (const auto& [index, group] : groups_) sum += group_data_bytes(disk_bytes_, index, group);
  return sum;
}

std::uint64_t DiskMap::data_chunks() const {
  std::uint64_t count = 0;
  for (const auto& [index, group] : groups_) {
    count += static_cast<std::uint64_t>(
        std::ranges::count_if(group.chunks, [](const ChunkId& id) { return !id.is_hole(); }));
  }
  return count;
}

Result<> DiskMap::add_group(std::uint32_t index, std::span<const char> encoded) {
  const auto name = "group " + std::to_string(index);
  const auto count = chunks_in_group(disk_bytes_, index);
  if (count == 0) return bad_group(name + " is beyond the disk");
  if (groups_.contains(index)) return bad_group(name + " is there already");
  auto group = Group::decode(encoded, count);
  if (!group) return fail(group.error(), name);
  groups_.emplace(index, *group);
  return {};
}

Manifest DiskMap::manifest() const {
  Manifest manifest;
  manifest.disk_bytes = disk_bytes_;
  manifest.data_bytes = data_bytes();
  manifest.groups.reserve(groups_.size());
  for (const auto& [index, group] : groups_) manifest.groups.push_back({index, ChunkId::of(group.encode())});
  return manifest;
}

std::string DiskMap::serialize() const {
  const auto root = manifest().encode();
  std::string out;
  out.reserve(sizeof(std::uint32_t) * (1 + groups_.size()) + root.size() + groups_.size() * kMaxGroupBytes);
  append_le(out, static_cast<std::uint32_t>(root.size()));
  out += root;
  for (const auto& [index, group] : groups_) {
    const auto encoded = group.encode();
    append_le(out, static_cast<std::uint32_t>(encoded.size()));
    out += encoded;
  }
  return out;
}

Result<DiskMap> DiskMap::deserialize(std::span<const char> data) {
  const auto next = [&data]() -> Result<std::span<const char>> {
    if (data.size() < sizeof(std::uint32_t))
      return bad_manifest("the file that holds it and its groups is cut");
    const auto length = load_le<std::uint32_t>(data, 0);
    data = data.subspan(sizeof length);
    if (length > data.size()) return bad_manifest("the file that holds it and its groups is cut");
    const auto piece = data.first(length);
    data = data.subspan(length);
    return piece;
  };
  const auto root = next();
  if (!root) return fail(root.error());
  const auto manifest = Manifest::decode(*root);
  if (!manifest) return fail(manifest.error());
  DiskMap map(manifest->disk_bytes);
  for (const auto& ref : manifest->groups) {
    const auto encoded = next();
    if (!encoded) return fail(encoded.error());
    if (ChunkId::of(*encoded) != ref.id) {
      return bad_manifest("group " + std::to_string(ref.index) + " has another SHA-256 than it says");
    }
    if (auto ok = map.add_group(ref.index, *encoded); !ok) return fail(ok.error());
  }
  if (!data.empty()) return bad_manifest(std::to_string(data.size()) + " bytes follow its last group");
  if (map.data_bytes() != manifest->data_bytes) {
    return bad_manifest("data_bytes says " + std::to_string(manifest->data_bytes) + ", its groups hold " +
                        std::to_string(map.data_bytes()));
  }
  return map;
}

std::vector<GroupRef> DiskMap::groups_differing(const Manifest& wanted) const {
  std::vector<GroupRef> differing;
  for (const auto& ref : wanted.groups) {
    const auto found = groups_.find(ref.index);
    if (found == groups_.end() || ChunkId::of(found->second.encode()) != ref.id) differing.push_back(ref);
  }
  return differing;
}

std::vector<std::uint64_t> DiskMap::chunks_differing(const DiskMap& base) const {
  std::vector<std::uint64_t> differing;
  static const Group kEmpty;
  const auto compare = [&](std::uint32_t index, const Group& mine, const Group& theirs) {
    const auto count = chunks_in_group(disk_bytes_, index);
    for (std::uint32_t i = 0; i < count; ++i) {
      if (mine.chunks[i] != theirs.chunks[i]) differing.push_back(std::uint64_t{index} * kGroupChunks + i);
    }
  };
  auto mine = groups_.begin();
  auto theirs = base.groups_.begin();
  while (mine != groups_.end() || theirs != base.groups_.end()) {
    const bool only_mine =
        theirs == base.groups_.end() || (mine != groups_.end() && mine->first < theirs->first);
    const bool only_theirs = !only_mine && (mine == groups_.end() || theirs->first < mine->first);
    if (only_mine) {
      compare(mine->first, mine->second, kEmpty);
    } else {
      compare(theirs->first, only_theirs ? kEmpty : mine->second, theirs->second);
    }
    if (!only_theirs) ++mine;
    if (!only_mine) ++theirs;
  }
  return differing;
}

}  // namespace educloud::chunk
