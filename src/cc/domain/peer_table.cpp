#include "cc/domain/peer_table.hpp"

#include <algorithm>

namespace educloud::cc {

void PeerTable::forget_old(std::int64_t boot_ms) {
  for (auto& [key, nodes] : joined_) {
    std::erase_if(nodes, [&](const auto& one) { return boot_ms - one.second.at_ms > kFreshMs; });
  }
  std::erase_if(joined_, [](const auto& one) { return one.second.empty(); });
  std::erase_if(caches_, [&](const auto& one) { return boot_ms - one.second.at_ms > kFreshMs; });
}

void PeerTable::join(const std::string& imgid, int version, const std::string& node, bool complete,
                     std::int64_t boot_ms) {
  const std::lock_guard lock(mutex_);
  const Key key{imgid, version};
  auto it = joined_.find(key);
  if (it == joined_.end()) {
    // A new version is rare: time to look who is gone.
    forget_old(boot_ms);
    if (joined_.size() >= kMaxVersions) return;
    it = joined_.emplace(key, std::map<std::string, Seen>{}).first;
  }
  if (it->second.size() >= kMaxNodes && !it->second.contains(node)) return;
  it->second[node] = {complete, boot_ms};
}

void PeerTable::remember(const std::string& node, const std::vector<msg::CachedImage>& images,
                         std::int64_t boot_ms) {
  const std::lock_guard lock(mutex_);
  if (!caches_.contains(node) && caches_.size() >= kMaxNodes) forget_old(boot_ms);
  if (!caches_.contains(node) && caches_.size() >= kMaxNodes) return;
  auto& cache = caches_[node];
  cache.at_ms = boot_ms;
  cache.digests.clear();
  for (const auto& image : images) cache.digests[{image.imgid, image.version}] = image.digest;
}

std::vector<PeerTable::Member> PeerTable::members(const std::string& imgid, int version,
                                                  const std::string& digest, const std::string& asker,
                                                  std::int64_t boot_ms) const {
  std::map<std::string, bool> found;
  {
    const std::lock_guard lock(mutex_);
    const Key key{imgid, version};
    if (const auto it = joined_.find(key); it != joined_.end()) {
      for (const auto& [node, seen] : it->second) {
        if (boot_ms - seen.at_ms <= kFreshMs) found[node] = seen.complete;
      }
    }
    for (const auto& [node, cache] : caches_) {
      if (digest.empty() || boot_ms - cache.at_ms > kFreshMs) continue;
      const auto it = cache.digests.find(key);
      if (it != cache.digests.end() && it->second == digest) found[node] = true;
    }
  }
  found.erase(asker);
  std::vector<Member> out;
  for (const auto& [node, complete] : found) out.push_back({node, complete});
  std::stable_sort(out.begin(), out.end(),
                   [](const Member& a, const Member& b) { return a.complete && !b.complete; });
  if (out.size() > kMaxMembers) out.resize(kMaxMembers);
  return out;
}

}  // namespace educloud::cc
