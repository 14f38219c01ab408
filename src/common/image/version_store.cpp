#include "common/image/version_store.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "common/base/clock.hpp"
#include "common/base/ids.hpp"
#include "common/base/random.hpp"
#include "common/image/digest.hpp"
#include "common/image/version_file.hpp"

namespace educloud::image {
namespace fs = std::filesystem;
fs::path VersionStore::image_dir(std::string_view image) const {
  return prefix_ / "images" / image;
}

fs::path VersionStore::version_dir(std::string_view image, int version) const {
  return image_dir(image) / "versions" / std::to_string(version);
}

fs::path VersionStore::file_path(std::string_view image, int version, std::string_view name) const {
  return version_dir(image, version) / name;
}

fs::path VersionStore::machine_path(std::string_view image, int version) const {
  return file_path(image, version, payload_);
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
  auto record = read_version_dir(version_dir(image, version));
  if (!record) {
    if (record.error().code != ErrorCode::not_found) return fail(record.error());
    return fail(ErrorCode::not_found, key_text(image, version) + " is not in " + prefix_.string());
  }
  auto& info = record->info;
  if (info.image != image || info.version != version) {
    return fail(ErrorCode::corrupt, version_dir(image, version).string() + "/info.json is about " +
                                        key_text(info.image, info.version) + ": remove that directory");
  }
  return std::move(info);
}

Result<> VersionStore::publish(const fs::path& staged, VersionInfo info, const Companions& companions) {
  if (auto ok = check_key(info.image, info.version); !ok) return ok;
  if (auto ok = check_version_info(info); !ok) return ok;
  if (auto ok = check_companions(companions, payload_); !ok) return ok;
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
  auto payload_bytes = check_and_sync_payload(staged);
  if (!payload_bytes) return fail(payload_bytes.error());

  const std::lock_guard lock(mutex_);
  already = published_already();
  if (!already) return fail(already.error());
  if (*already) return finish_repeat();
  if (auto ok = check_stands_on(info); !ok) return ok;
  auto work = prepare(staged, info, *payload_bytes, companions);
  if (!work) return fail(work.error());
  auto done = commit(*work, info);
  if (!done) {
    ::rename((*work / payload_).c_str(), staged.c_str());
    static_cast<void>(discard(*work));  // the error that counts is the first
  }
  return done;
}

/// A complete, synced directory under tmp/publish. After an error `staged` is where it was. The caller holds
/// the lock.
Result<fs::path> VersionStore::prepare(const fs::path& staged, const VersionInfo& info,
                                       std::uint64_t payload_bytes, const Companions& companions) {
  const auto work =
      prefix_ / "tmp" / "publish" / (info.image + "." + std::to_string(info.version) + "." + random_hex(6));
  if (::mkdir(work.c_str(), 0755) != 0) return fail(errno_error("mkdir " + work.string(), errno));
  VersionRecord record{info, payload_, {{payload_, payload_bytes}}};
  Result<> done;
  for (const auto& [name, content] : companions) {
    record.files[name] = content.size();
    if (done) done = sys::write_file_atomically(work / name, content, 0444);
  }
  // The payload last: killed after the rename, open() finds all it needs to finish.
  if (done) done = sys::write_file_atomically(work / "info.json", format_version_record(record));
  if (done) done = sys::sync_path(work.parent_path());
  bool moved = false;
  if (done) {
    moved = ::rename(staged.c_str(), (work / payload_).c_str()) == 0;
    if (!moved) {
      done = fail(errno_error(
          "move " + staged.string() + " into " + prefix_.string() + " (must be one file system)", errno));
    }
  }
  if (done) done = make_durable(work, payload_);
  if (done) return work;
  if (moved) ::rename((work / payload_).c_str(), staged.c_str());
  static_cast<void>(discard(work));  // the error that counts is the first
  return fail(done.error());
}

/// From a complete directory under tmp/publish to images/. The caller holds the lock (or is open()).
Result<> VersionStore::commit(const fs::path& directory, const VersionInfo& info) {
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
  const auto beside = directory / ("." + payload_ + "." + random_hex(6));
  const auto target = "versions/" + std::to_string(version) + "/" + payload_;
  if (::symlink(target.c_str(), beside.c_str()) != 0)
    return fail(errno_error("symlink " + beside.string(), errno));
  if (::rename(beside.c_str(), (directory / payload_).c_str()) != 0) {
    const int code = errno;
    ::unlink(beside.c_str());
    return fail(errno_error("rename to " + (directory / payload_).string(), code));
  }
  if (payload_ != "machine") ::unlink((directory / "machine").c_str());  // of before there were chunks
  return sys::sync_path(directory);
}

Result<std::optional<int>> VersionStore::current(std::string_view image) const {
  if (auto id = ImageId::parse(image); !id) return fail(id.error());
  // Before there were chunks the link was called machine everywhere.
  for (const std::string& name : {payload_, std::string("machine")}) {
    std::error_code error;
    const auto target = fs::read_symlink(image_dir(image) / name, error).string();
    const std::string before = "versions/", after = "/" + name;
    if (error) continue;
    if (!target.starts_with(before) || !target.ends_with(after) ||
        target.size() < before.size() + after.size()) {
      return std::optional<int>{};
    }
    return parse_version(
        std::string_view(target).substr(before.size(), target.size() - before.size() - after.size()));
  }
  return std::optional<int>{};
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
  if (auto free = check_not_stood_on(image, version); !free) return free;
  // The link first: it never leads nowhere.
  if (*in_use == version) {
    fs::remove(image_dir(image) / payload_, error);
    fs::remove(image_dir(image) / "machine", error);
  }
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
  if (auto free = check_not_stood_on(image, std::nullopt); !free) return free;
  return discard(image_dir(image));
}

}  // namespace educloud::image
