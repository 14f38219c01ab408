#include "nc/cache/local_versions.hpp"

#include <fcntl.h>

#include <algorithm>
#include <charconv>
#include <cstring>

#include "common/base/ids.hpp"
#include "common/obs/log.hpp"
#include "common/sys/file.hpp"

namespace educloud::nc {
namespace {

/// Chains are flattened long before; this ends a ring.
constexpr std::size_t kDeepest = 32;
constexpr std::size_t kMaxMapBytes = 1u << 30;
constexpr std::size_t kMaxCompared = 64;
constexpr std::int64_t kHandedOutMs = 60'000;

}  // namespace

std::optional<VersionKey> parse_version_key(std::string_view text) {
  const auto slash = text.find('/');
  if (slash == std::string_view::npos) return std::nullopt;
  const auto image = ImageId::parse(text.substr(0, slash));
  const auto number = text.substr(slash + 1);
  int version = 0;
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), version);
  if (!image || error != std::errc{} || end != number.data() + number.size() || version < 1)
    return std::nullopt;
  return VersionKey{image->str(), version};
}

Result<std::vector<image::VersionInfo>> LocalVersions::chain(const std::string& imgid, int version) const {
  std::vector<image::VersionInfo> found;
  std::optional<VersionKey> next = VersionKey{imgid, version};
  while (next) {
    if (found.size() == kDeepest)
      return fail(ErrorCode::corrupt, imgid + " version " + std::to_string(version) + " stands on too many");
    auto info = store_.find(next->first, next->second);
    if (!info) return fail(info.error());
    next.reset();
    if (!info->stands_on.empty()) {
      next = parse_version_key(info->stands_on);
      if (!next) return fail(ErrorCode::corrupt, "stands_on '" + info->stands_on + "' names no version");
    }
    found.push_back(std::move(*info));
  }
  return found;
}

Result<std::vector<DiskLayer>> LocalVersions::layers(const std::string& imgid, int version) const {
  auto infos = chain(imgid, version);
  if (!infos) return fail(infos.error());
  std::vector<DiskLayer> files;
  for (const auto& info : *infos)
    files.push_back({store_.machine_path(info.image, info.version), info.format});
  return files;
}

Result<image::LayeredDisk> LocalVersions::open_disk(const std::string& imgid, int version) const {
  auto files = layers(imgid, version);
  if (!files) return fail(files.error());
  std::vector<image::LayeredDisk::Layer> opened;
  for (auto& layer : *files) opened.push_back({std::move(layer.file), std::move(layer.format)});
  return image::LayeredDisk::open(std::move(opened));
}

Result<chunk::DiskMap> LocalVersions::map(const std::string& imgid, int version) const {
  auto info = store_.find(imgid, version);
  if (!info) return fail(info.error());
  const auto path = store_.file_path(imgid, version, kManifestFile);
  auto text = sys::read_file(path, kMaxMapBytes);
  if (!text) return fail(text.error());
  auto parsed = chunk::DiskMap::deserialize(*text);
  if (!parsed) return fail(parsed.error(), path.string());
  if (parsed->manifest().digest().hex() != info->digest)
    return fail(ErrorCode::corrupt, path.string() + " is not the manifest of that version");
  return parsed;
}

Result<chunk::Manifest> LocalVersions::root(const std::string& imgid, int version) const {
  const auto path = store_.file_path(imgid, version, kManifestFile);
  auto fd = sys::open_file(path, O_RDONLY);
  if (!fd) return fail(fd.error());
  const auto wrong = [&] { return fail(ErrorCode::corrupt, path.string() + " is no manifest"); };
  std::uint32_t length = 0;
  if (::pread(fd->get(), &length, sizeof length, 0) != sizeof length || length > chunk::kMaxManifestBytes)
    return wrong();
  std::string text(length, '\0');
  if (::pread(fd->get(), text.data(), length, sizeof length) != static_cast<ssize_t>(length)) return wrong();
  return chunk::Manifest::decode(text);
}

std::vector<LocalVersions::Candidate> LocalVersions::similar(const std::string& imgid,
                                                             const chunk::Manifest& wanted, std::size_t max) {
  struct Scored {
    std::size_t common = 0;
    bool is_same_image = false;
    image::VersionInfo info;
  };
  std::vector<Scored> scored;
  auto all = store_.list();
  if (!all) return {};
  for (auto& info : *all) {
    const bool same = info.image == imgid;
    if (!same && scored.size() >= kMaxCompared) continue;
    auto manifest = root(info.image, info.version);
    if (!manifest) continue;
    const auto common = groups_in_common(*manifest, wanted);
    if (common > 0 || same) scored.push_back({common, same, std::move(info)});
  }
  // Groups tell little when changes are spread; then the newest of the same image is the best guess.
  std::sort(scored.begin(), scored.end(), [](const Scored& a, const Scored& b) {
    return std::tuple(a.common, a.is_same_image, a.info.version) >
           std::tuple(b.common, b.is_same_image, b.info.version);
  });
  std::vector<Candidate> found;
  for (const auto& one : scored) {
    if (found.size() == max) break;
    auto files = chain(one.info.image, one.info.version);
    auto parsed = map(one.info.image, one.info.version);
    if (!files || !parsed) {
      obs::warn("cache.version_unusable",
                {{"image", one.info.image},
                 {"version", one.info.version},
                 {"error", files ? parsed.error().message : files.error().message}});
      continue;
    }
    found.push_back({{one.info.image, one.info.version, one.info.digest, one.info.format, files->size()},
                     std::move(*parsed)});
  }
  return found;
}

LocalVersions::Lease::Lease(LocalVersions& local, VersionKey key) : local_(local), key_(std::move(key)) {
  const std::lock_guard lock(local_.mutex_);
  ++local_.leased_[key_];
}

LocalVersions::Lease::~Lease() {
  const std::lock_guard lock(local_.mutex_);
  const auto found = local_.leased_.find(key_);
  if (--found->second == 0) local_.leased_.erase(found);
}

void LocalVersions::handed_out(const std::string& imgid, int version) {
  store_.touch(imgid, version);
  const std::lock_guard lock(mutex_);
  const auto now = clock_.boot_ms();
  std::erase_if(handed_out_ms_, [&](const auto& entry) { return entry.second + kHandedOutMs < now; });
  handed_out_ms_[{imgid, version}] = now;
}

void LocalVersions::set_in_use(std::set<VersionKey> versions) {
  const std::lock_guard lock(mutex_);
  in_use_ = std::move(versions);
}

bool LocalVersions::is_needed(const VersionKey& key, const std::vector<image::VersionInfo>& all) {
  const auto recent = handed_out_ms_.find(key);
  if (in_use_.contains(key) || leased_.contains(key)) return true;
  if (recent != handed_out_ms_.end() && recent->second + kHandedOutMs >= clock_.boot_ms()) return true;
  const auto name = key.first + "/" + std::to_string(key.second);
  return std::any_of(all.begin(), all.end(), [&](const auto& info) { return info.stands_on == name; });
}

void LocalVersions::make_room(std::uint64_t wanted) {
  const std::lock_guard lock(mutex_);
  for (;;) {
    auto space = sys::disk_space(store_.prefix());
    if (!space || space->free_bytes >= wanted) return;
    auto candidates = store_.eviction_candidates();
    auto all = store_.list();
    if (!candidates || !all) return;
    bool removed = false;
    for (const auto& candidate : *candidates) {
      const auto& info = candidate.info;
      if (is_needed({info.image, info.version}, *all)) continue;
      // Removing one may free what it stood on: look anew.
      if (!store_.remove(info.image, info.version)) continue;
      obs::info("cache.evicted",
                {{"image", info.image}, {"version", info.version}, {"bytes", candidate.allocated_bytes}});
      removed = true;
      break;
    }
    if (!removed) return;
  }
}

std::vector<image::VersionInfo> LocalVersions::too_deep(std::size_t max_layers) {
  auto all = store_.list();
  if (!all) return {};
  std::vector<image::VersionInfo> found;
  const std::lock_guard lock(mutex_);
  for (const auto& info : *all) {
    if (info.stands_on.empty() || is_needed({info.image, info.version}, *all)) continue;
    auto files = chain(info.image, info.version);
    if (files && files->size() > max_layers) found.push_back(info);
  }
  return found;
}

Result<> LocalVersions::replace(const std::filesystem::path& staged, const image::VersionInfo& info,
                                const image::Companions& companions) {
  const std::lock_guard lock(mutex_);
  auto all = store_.list();
  if (!all) return fail(all.error());
  // Who stands on it has its format written down.
  if (is_needed({info.image, info.version}, *all))
    return fail(ErrorCode::conflict, info.image + " version " + std::to_string(info.version) + " is in use");
  return store_.replace(staged, info, companions);
}

}  // namespace educloud::nc
