// Who uses which version: pins, last use, and what stands on what.
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <set>

#include "common/image/version_file.hpp"
#include "common/image/version_store.hpp"

namespace educloud::image {

/// The caller holds the lock, so that what is found can not be removed before the new version is there.
Result<> VersionStore::check_stands_on(const VersionInfo& info) const {
  if (info.stands_on.empty()) return {};
  const auto slash = info.stands_on.find('/');
  const auto image = info.stands_on.substr(0, slash);
  const auto version = parse_version(std::string_view(info.stands_on).substr(slash + 1));
  if (version && find(image, *version)) return {};
  return fail(ErrorCode::conflict, key_text(info.image, info.version) + " stands on " + info.stands_on +
                                       ", which is not here (any more): make it again from what is here");
}

/// `version` absent: any of the image, by versions of other images. The caller holds the lock.
Result<> VersionStore::check_not_stood_on(std::string_view image, std::optional<int> version) const {
  auto all = list();
  if (!all) return fail(all.error());
  for (const auto& other : *all) {
    const bool stands = version
                            ? other.stands_on == version_key(image, *version)
                            : other.image != image && other.stands_on.starts_with(std::string(image) + "/");
    if (!stands) continue;
    return fail(ErrorCode::conflict, key_text(other.image, other.version) + " stands on " + other.stands_on +
                                         ": remove or flatten it first");
  }
  return {};
}

Result<> VersionStore::pin(std::string_view image, int version) {
  const std::lock_guard lock(mutex_);
  if (auto there = find(image, version); !there) return fail(there.error());
  ++pins_[Key(image, version)];
  return {};
}

void VersionStore::unpin(std::string_view image, int version) {
  const std::lock_guard lock(mutex_);
  const auto pin = pins_.find(Key(image, version));
  if (pin != pins_.end() && --pin->second == 0) pins_.erase(pin);
}

void VersionStore::touch(std::string_view image, int version) const {
  if (!check_key(image, version)) return;
  // Kept as the mtime of info.json: survives a restart, costs no write of a file.
  ::utimensat(AT_FDCWD, (version_dir(image, version) / "info.json").c_str(), nullptr, AT_SYMLINK_NOFOLLOW);
}

Result<std::vector<EvictionCandidate>> VersionStore::eviction_candidates() const {
  auto all = list();
  if (!all) return fail(all.error());
  std::set<std::string> stood_on;
  for (const auto& info : *all) stood_on.insert(info.stands_on);
  std::vector<EvictionCandidate> candidates;
  for (auto& info : *all) {
    {
      const std::lock_guard lock(mutex_);
      if (pins_.contains(Key(info.image, info.version))) continue;
    }
    if (stood_on.contains(version_key(info.image, info.version))) continue;
    auto in_use = current(info.image);
    if (!in_use || (*in_use == info.version && !is_cache_)) continue;
    struct stat note {};
    const auto directory = version_dir(info.image, info.version);
    if (::stat((directory / "info.json").c_str(), &note) != 0) continue;  // removed meanwhile
    candidates.push_back({std::move(info), note.st_mtim.tv_sec * 1000 + note.st_mtim.tv_nsec / 1'000'000,
                          allocated_in(directory)});
  }
  std::sort(candidates.begin(), candidates.end(),
            [](const auto& a, const auto& b) { return a.last_used_ms < b.last_used_ms; });
  return candidates;
}

Result<std::uint64_t> VersionStore::allocated_bytes() const {
  auto all = list();
  if (!all) return fail(all.error());
  std::uint64_t sum = 0;
  for (const auto& info : *all) sum += allocated_in(version_dir(info.image, info.version));
  return sum;
}

}  // namespace educloud::image
