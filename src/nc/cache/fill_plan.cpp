#include "nc/cache/fill_plan.hpp"

#include <algorithm>
#include <optional>
#include <unordered_map>

#include "nc/cache/chunk_index.hpp"

namespace educloud::nc {
namespace {

constexpr std::uint64_t kGroup = chunk::kGroupChunks;

void mix(std::uint64_t& hash, std::uint64_t value) {
  for (int byte = 0; byte < 8; ++byte) {
    hash = (hash ^ (value >> (8 * byte) & 0xff)) * 0x100000001b3ULL;
  }
}

/// Chunks of `wanted` that the file must get, and new holes, as against what shines through from `base`.
void split(const chunk::DiskMap& wanted, const chunk::DiskMap* below, FillPlan& plan) {
  const auto chunks = chunk::chunk_count(wanted.disk_bytes());
  if (below != nullptr) {
    for (const auto at : wanted.chunks_differing(*below)) {
      if (at >= chunks) break;  // the base goes on beyond our end: cut off, not written
      (wanted.at(at).is_hole() ? plan.zeros : plan.data).push_back(at);
    }
    return;
  }
  plan.data.reserve(wanted.groups().size() * kGroup);
  for (const auto& [index, group] : wanted.groups()) {
    for (std::uint64_t i = 0; i < kGroup; ++i) {
      if (!group.chunks[i].is_hole()) plan.data.push_back(index * kGroup + i);
    }
  }
}

}  // namespace

std::uint64_t FillPlan::fingerprint() const {
  std::uint64_t hash = 0xcbf29ce484222325ULL;
  mix(hash, static_cast<std::uint64_t>(kind));
  mix(hash, disk_bytes);
  mix(hash, data.size());
  for (const auto at : data) mix(hash, at);
  for (const auto at : zeros) mix(hash, at);
  return hash;
}

FillPlan make_plan(const chunk::DiskMap& wanted, const chunk::DiskMap* base_map, TargetKind kind) {
  FillPlan plan;
  plan.kind = kind;
  plan.disk_bytes = wanted.disk_bytes();
  split(wanted, kind == TargetKind::sparse ? nullptr : base_map, plan);

  std::optional<ChunkIndex> in_base;
  if (base_map != nullptr && !plan.data.empty()) in_base.emplace(*base_map);
  std::unordered_map<chunk::ChunkId, std::uint64_t, chunk::ChunkIdHash> first;
  first.reserve(plan.data.size());
  for (const auto at : plan.data) {
    const auto id = wanted.at(at);
    const auto from = in_base ? in_base->find(*base_map, id) : std::nullopt;
    if (from) {
      plan.copies.push_back({at, *from});
      continue;
    }
    const auto [known, is_new] = first.try_emplace(id, at);
    if (!is_new) {
      plan.repeats.push_back({at, known->second});
      continue;
    }
    plan.fetch.push_back(at);
    plan.fetch_bytes += chunk::chunk_length(plan.disk_bytes, at);
  }
  std::sort(plan.repeats.begin(), plan.repeats.end(),
            [](const auto& a, const auto& b) { return std::pair(a.of, a.chunk) < std::pair(b.of, b.chunk); });
  return plan;
}

TargetKind choose_kind(const chunk::DiskMap& wanted, const BaseVersion& base, const chunk::DiskMap& base_map,
                       bool can_clone) {
  if (can_clone && base.format == "raw") return TargetKind::clone;
  // A qcow2 disk is a number of 512-byte sectors.
  if (base.layers >= kMaxChain || wanted.disk_bytes() % 512 != 0) return TargetKind::sparse;
  std::uint64_t written = 0;
  for (const auto at : wanted.chunks_differing(base_map)) {
    if (at < chunk::chunk_count(wanted.disk_bytes()) && !wanted.at(at).is_hole()) ++written;
  }
  return written * 2 < wanted.data_chunks() ? TargetKind::delta : TargetKind::sparse;
}

std::size_t groups_in_common(const chunk::Manifest& a, const chunk::Manifest& b) {
  std::size_t common = 0;
  auto left = a.groups.begin();
  auto right = b.groups.begin();
  while (left != a.groups.end() && right != b.groups.end()) {
    if (left->index == right->index) {
      common += left->id == right->id ? 1 : 0;
      ++left;
      ++right;
    } else if (left->index < right->index) {
      ++left;
    } else {
      ++right;
    }
  }
  return common;
}

}  // namespace educloud::nc
