#include "common/image/version_store.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>

#include "common/base/clock.hpp"
#include "common/base/ids.hpp"
#include "common/base/random.hpp"
#include "common/image/digest.hpp"
#include "common/image/version_file.hpp"

namespace educloud::image {
namespace fs = std::filesystem;
namespace {

constexpr int kMaxVersion = 1'000'000'000;

Result<> check_key(std::string_view image, int version) {
  if (auto id = ImageId::parse(image); !id) return fail(id.error());
  if (version < 1 || version > kMaxVersion) {
    return fail(ErrorCode::invalid_argument, "version " + std::to_string(version) + " is not in 1..1e9",
                "version");
  }
  return {};
}

std::optional<int> parse_version(std::string_view text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool ok =
      error == std::errc{} && end == text.data() + text.size() && value >= 1 && value <= kMaxVersion;
  // One spelling only: "07" is not version 7.
  if (!ok || std::to_string(value) != text) return std::nullopt;
  return value;
}

std::string key_text(std::string_view image, int version) {
  return std::string(image) + " version " + std::to_string(version);
}

}  // namespace

fs::path VersionStore::image_dir(std::string_view image) const {
  return prefix_ / "images" / image;
}

fs::path VersionStore::version_dir(std::string_view image, int version) const {
  return image_dir(image) / "versions" / std::to_string(version);
}

fs::path VersionStore::machine_path(std::string_view image, int version) const {
  return version_dir(image, version) / "machine";
}

Result<fs::path> VersionStore::staging(std::string_view name) const {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
  };
  if (name.empty() || name.size() > 120 || name[0] == '.' ||
      !std::all_of(name.begin(), name.end(), allowed)) {
    return fail(ErrorCode::invalid_argument, "staging name '" + printable_name(name) +
                                                 "' is not 1..120 of [A-Za-z0-9._-] without a leading dot");
  }
  return prefix_ / "tmp" / "staging" / name;
}

Result<std::vector<VersionInfo>> VersionStore::list(std::string_view image) const {
  if (auto id = ImageId::parse(image); !id) return fail(id.error());
  std::vector<VersionInfo> found;
  std::error_code error;
  for (fs::directory_iterator entry(image_dir(image) / "versions", error), end; !error && entry != end;
       entry.increment(error)) {
    const auto version = parse_version(entry->path().filename().string());
    if (!version) continue;
    if (auto info = find(image, *version)) found.push_back(std::move(*info));
  }
  if (error && error != std::errc::no_such_file_or_directory) {
    return fail(errno_error("list " + image_dir(image).string(), error.value()));
  }
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.version < b.version; });
  return found;
}

Result<std::vector<VersionInfo>> VersionStore::list() const {
  std::vector<std::string> images;
  std::error_code error;
  for (fs::directory_iterator entry(prefix_ / "images", error), end; !error && entry != end;
       entry.increment(error)) {
    if (auto id = ImageId::parse(entry->path().filename().string())) images.push_back(id->str());
  }
  if (error) return fail(errno_error("list " + (prefix_ / "images").string(), error.value()));
  std::sort(images.begin(), images.end());
  std::vector<VersionInfo> all;
  for (const auto& image : images) {
    auto versions = list(image);
    if (!versions) return versions;
    all.insert(all.end(), versions->begin(), versions->end());
  }
  return all;
}

Result<VersionInfo> VersionStore::find(std::string_view image, int version) const {
  if (auto ok = check_key(image, version); !ok) return fail(ok.error());
  auto info = read_version_dir(version_dir(image, version));
  if (!info) {
    if (info.error().code != ErrorCode::not_found) return fail(info.error());
    return fail(ErrorCode::not_found, key_text(image, version) + " is not in " + prefix_.string());
  }
  if (info->image != image || info->version != version) {
    return fail(ErrorCode::corrupt, version_dir(image, version).string() + "/info.json is about " +
                                        key_text(info->image, info->version) + ": remove that directory");
  }
  return info;
}

Result<> VersionStore::publish(const fs::path& staged, VersionInfo info) {
  if (auto ok = check_key(info.image, info.version); !ok) return ok;
  if (auto ok = check_version_info(info); !ok) return ok;
  if (info.created_at == 0) info.created_at = SystemClock().wall_ms();
  const auto published_already = [&]() -> Result<bool> {
    auto existing = find(info.image, info.version);
    if (!existing) return false;  // not there, or broken: then it is replaced
    if (existing->digest == info.digest) return true;
    return fail(ErrorCode::conflict, key_text(info.image, info.version) + " is published with digest " +
                                         existing->digest + ", not " + info.digest +
                                         ": a version never changes, use the next number");
  };
  const auto finish_repeat = [&]() -> Result<> {
    std::error_code ignored;
    fs::remove(staged, ignored);
    return {};
  };
  auto already = published_already();
  if (!already) return fail(already.error());
  if (*already) return finish_repeat();
  // The long part, without the lock.
  if (auto ok = check_and_sync_machine(staged, info.size_bytes); !ok) return ok;

  const std::lock_guard lock(mutex_);
  already = published_already();
  if (!already) return fail(already.error());
  if (*already) return finish_repeat();
  const auto work =
      prefix_ / "tmp" / "publish" / (info.image + "." + std::to_string(info.version) + "." + random_hex(6));
  if (::mkdir(work.c_str(), 0755) != 0) return fail(errno_error("mkdir " + work.string(), errno));
  // info.json first: killed after the rename below, open() finds all it needs to finish.
  auto done = sys::write_file_atomically(work / "info.json", format_version_info(info));
  if (done) done = sys::sync_path(work.parent_path());
  if (done && ::rename(staged.c_str(), (work / "machine").c_str()) != 0) {
    done = fail(errno_error(
        "move " + staged.string() + " into " + prefix_.string() + " (must be one file system)", errno));
  }
  if (done) {
    done = commit(work, info);
    if (!done) ::rename((work / "machine").c_str(), staged.c_str());
  }
  if (!done) {
    static_cast<void>(discard(work));  // the error that counts is the first
  }
  return done;
}

/// From a complete directory under tmp/publish to images/. The caller holds the lock (or is open()).
Result<> VersionStore::commit(const fs::path& directory, const VersionInfo& info) {
  const auto machine = directory / "machine";
  if (::chmod(machine.c_str(), 0444) != 0) return fail(errno_error("chmod " + machine.string(), errno));
  if (auto done = sys::sync_path(machine); !done) return done;
  if (auto done = sys::sync_path(directory); !done) return done;
  const auto target = version_dir(info.image, info.version);
  if (auto done = sys::make_directories(target.parent_path()); !done) return done;
  std::error_code error;
  if (fs::exists(fs::symlink_status(target, error))) {
    // find() did not accept it, so it is no version: a broken one, or a stray directory.
    if (auto gone = discard(target); !gone) return gone;
  }
  if (::rename(directory.c_str(), target.c_str()) != 0)
    return fail(errno_error("rename to " + target.string(), errno));
  return sys::sync_path(target.parent_path());
}

Result<> VersionStore::discard(const fs::path& path) {
  const auto trash = prefix_ / "tmp" / "trash" / (path.filename().string() + "." + random_hex(6));
  // Renamed first: a version directory is never seen half removed.
  if (::rename(path.c_str(), trash.c_str()) != 0) {
    if (errno == ENOENT) return {};
    return fail(errno_error("remove " + path.string(), errno));
  }
  if (auto done = sys::sync_path(path.parent_path()); !done) return done;
  std::error_code error;
  fs::remove_all(trash, error);  // what is left, the next open() removes
  return {};
}

Result<> VersionStore::set_current(std::string_view image, int version) {
  if (auto there = find(image, version); !there) return fail(there.error());
  const std::lock_guard lock(mutex_);
  const auto directory = image_dir(image);
  const auto beside = directory / (".machine." + random_hex(6));
  const auto target = "versions/" + std::to_string(version) + "/machine";
  if (::symlink(target.c_str(), beside.c_str()) != 0)
    return fail(errno_error("symlink " + beside.string(), errno));
  if (::rename(beside.c_str(), (directory / "machine").c_str()) != 0) {
    const int code = errno;
    ::unlink(beside.c_str());
    return fail(errno_error("rename to " + (directory / "machine").string(), code));
  }
  return sys::sync_path(directory);
}

Result<std::optional<int>> VersionStore::current(std::string_view image) const {
  if (auto id = ImageId::parse(image); !id) return fail(id.error());
  std::error_code error;
  const auto target = fs::read_symlink(image_dir(image) / "machine", error).string();
  constexpr std::string_view kBefore = "versions/", kAfter = "/machine";
  if (error || !target.starts_with(kBefore) || !target.ends_with(kAfter) ||
      target.size() < kBefore.size() + kAfter.size()) {
    return std::optional<int>{};
  }
  return parse_version(
      std::string_view(target).substr(kBefore.size(), target.size() - kBefore.size() - kAfter.size()));
}

Result<> VersionStore::remove(std::string_view image, int version) {
  if (auto ok = check_key(image, version); !ok) return ok;
  const std::lock_guard lock(mutex_);
  const auto directory = version_dir(image, version);
  std::error_code error;
  if (!fs::exists(fs::symlink_status(directory, error))) return {};
  if (pins_.contains(Key(image, version))) {
    return fail(ErrorCode::conflict, key_text(image, version) + " is in use: stop what uses it first");
  }
  auto in_use = current(image);
  if (!in_use) return fail(in_use.error());
  if (*in_use == version && !is_cache_) {
    return fail(ErrorCode::conflict,
                key_text(image, version) + " is the current one: choose another one first");
  }
  // The link first: it never leads nowhere.
  if (*in_use == version) fs::remove(image_dir(image) / "machine", error);
  if (auto gone = discard(directory); !gone) return gone;
  // Only if empty: rmdir refuses otherwise.
  ::rmdir(directory.parent_path().c_str());
  ::rmdir(image_dir(image).c_str());
  return {};
}

Result<> VersionStore::remove_image(std::string_view image) {
  if (auto id = ImageId::parse(image); !id) return fail(id.error());
  const std::lock_guard lock(mutex_);
  for (const auto& [key, count] : pins_) {
    if (key.first == image) {
      return fail(ErrorCode::conflict,
                  key_text(key.first, key.second) + " is in use: stop what uses it first");
    }
  }
  return discard(image_dir(image));
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
  std::vector<EvictionCandidate> candidates;
  for (auto& info : *all) {
    {
      const std::lock_guard lock(mutex_);
      if (pins_.contains(Key(info.image, info.version))) continue;
    }
    auto in_use = current(info.image);
    if (!in_use || (*in_use == info.version && !is_cache_)) continue;
    struct stat note {
    }, machine{};
    const auto directory = version_dir(info.image, info.version);
    if (::stat((directory / "info.json").c_str(), &note) != 0) continue;  // removed meanwhile
    if (::stat((directory / "machine").c_str(), &machine) != 0) continue;
    candidates.push_back({std::move(info), note.st_mtim.tv_sec * 1000 + note.st_mtim.tv_nsec / 1'000'000,
                          static_cast<std::uint64_t>(machine.st_blocks) * 512});
  }
  std::sort(candidates.begin(), candidates.end(),
            [](const auto& a, const auto& b) { return a.last_used_ms < b.last_used_ms; });
  return candidates;
}

Result<std::uint64_t> VersionStore::allocated_bytes() const {
  auto all = list();
  if (!all) return fail(all.error());
  std::uint64_t sum = 0;
  for (const auto& info : *all) {
    struct stat machine {};
    if (::stat(machine_path(info.image, info.version).c_str(), &machine) == 0) {
      sum += static_cast<std::uint64_t>(machine.st_blocks) * 512;
    }
  }
  return sum;
}

}  // namespace educloud::image
