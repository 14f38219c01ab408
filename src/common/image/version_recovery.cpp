// VersionStore::open and what it does with the leftovers of a killed process. Kill -9 between any two
// calls of publish(), set_current() or remove() leaves one of:
//   tmp/publish/x without payload   the staged file is still the caller's: drop x
//   tmp/publish/x with payload      complete (info.json and companions came before): finish it
//   images/<id>/.<payload>.x        a link not yet renamed: drop it
//   tmp/trash/x                     already out of images/: remove the rest
// and of replace(), tmp/publish/x with a payload for a version that is there: before the swap the new form,
// after it the old one. Both are whole, so whichever is in images/ stays and x goes.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "common/image/version_file.hpp"
#include "common/image/version_store.hpp"

namespace educloud::image {
namespace fs = std::filesystem;
namespace {

std::vector<fs::path> entries_of(const fs::path& directory) {
  std::vector<fs::path> entries;
  std::error_code error;
  for (fs::directory_iterator entry(directory, error), end; !error && entry != end; entry.increment(error)) {
    entries.push_back(entry->path());
  }
  return entries;
}

/// Newest write below `path`, itself included; unreadable parts do not count.
fs::file_time_type last_write(const fs::path& path) {
  std::error_code error;
  auto newest = fs::file_time_type::min();
  const auto look = [&](const fs::path& one) {
    std::error_code failed;
    if (fs::is_symlink(fs::symlink_status(one, failed))) return;
    const auto time = fs::last_write_time(one, failed);
    if (!failed) newest = std::max(newest, time);
  };
  look(path);
  if (fs::is_symlink(fs::symlink_status(path, error))) return newest;
  for (fs::recursive_directory_iterator entry(path, error), end; !error && entry != end;
       entry.increment(error)) {
    look(entry->path());
  }
  return newest;
}

}  // namespace

Result<std::unique_ptr<VersionStore>> VersionStore::open(const fs::path& prefix, Options options) {
  if (!is_file_name(options.payload)) {
    return fail(ErrorCode::invalid_argument, "'" + printable_name(options.payload) + "' is no payload name");
  }
  std::error_code error;
  const auto root = fs::absolute(prefix, error);  // overlays name their base by absolute path
  if (error) return fail(errno_error("resolve " + prefix.string(), error.value()));
  for (const char* part : {"images", "tmp/staging", "tmp/publish", "tmp/trash"}) {
    if (auto made = sys::make_directories(root / part); !made) return fail(made.error());
  }
  const auto lock_path = root / "tmp" / ".store.lock";
  auto lock = sys::open_file(lock_path, O_RDWR | O_CREAT, 0600);
  if (!lock) return fail(lock.error());
  if (::flock(lock->get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return fail(errno_error("lock " + lock_path.string(), errno));
    return fail(ErrorCode::conflict,
                root.string() + " is in use by another daemon: give each daemon its own prefix");
  }
  std::unique_ptr<VersionStore> store(new VersionStore(root, std::move(*lock), options));
  if (auto done = store->recover(options); !done) return fail(done.error(), "recover " + root.string());
  return store;
}

Result<> VersionStore::recover(const Options& options) {
  for (const auto& directory : entries_of(prefix_ / "tmp" / "publish")) {
    if (auto done = recover_publish(directory); !done) return done;
  }
  std::error_code ignored;
  for (const auto& trash : entries_of(prefix_ / "tmp" / "trash")) fs::remove_all(trash, ignored);
  for (const auto& image : entries_of(prefix_ / "images")) {
    for (const auto& entry : entries_of(image)) {
      const bool link = fs::is_symlink(fs::symlink_status(entry, ignored));
      if (link && entry.filename().string().starts_with(".")) fs::remove(entry, ignored);
    }
  }
  const auto oldest = fs::file_time_type::clock::now() - options.staging_max_age;
  for (const auto& staged : entries_of(prefix_ / "tmp" / "staging")) {
    if (last_write(staged) < oldest) fs::remove_all(staged, ignored);
  }
  return {};
}

Result<> VersionStore::recover_publish(const fs::path& directory) {
  auto record = read_version_dir(directory);
  // Published meanwhile, by us before the kill or by a repeat under another name: that one stays.
  if (!record || find(record->info.image, record->info.version)) return discard(directory);
  if (!check_key(record->info.image, record->info.version) || !check_stands_on(record->info)) {
    return discard(directory);
  }
  if (auto done = make_durable(directory, record->payload); !done) return done;
  return commit(directory, record->info);
}

}  // namespace educloud::image
