#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "common/image/version_file.hpp"
#include "common/image/version_store.hpp"

namespace educloud::image {
namespace fs = std::filesystem;

Result<> VersionStore::replace(const fs::path& staged, VersionInfo info, const Companions& companions) {
  if (auto ok = check_key(info.image, info.version); !ok) return ok;
  if (auto ok = check_version_info(info); !ok) return ok;
  if (auto ok = check_companions(companions, payload_); !ok) return ok;
  auto payload_bytes = check_and_sync_payload(staged);
  if (!payload_bytes) return fail(payload_bytes.error());

  const std::lock_guard lock(mutex_);
  auto existing = find(info.image, info.version);
  if (!existing) return fail(existing.error());
  if (existing->digest != info.digest) {
    return fail(ErrorCode::conflict, key_text(info.image, info.version) + " has digest " + existing->digest +
                                         ", not " + info.digest + ": only its form may change");
  }
  if (auto ok = check_stands_on(info); !ok) return ok;
  info.created_at = existing->created_at;
  const auto target = version_dir(info.image, info.version);
  auto work = prepare(staged, info, *payload_bytes, companions);
  if (!work) return fail(work.error());
  struct stat note {};
  if (::stat((target / "info.json").c_str(), &note) == 0) {
    const std::array<timespec, 2> times{note.st_atim, note.st_mtim};
    ::utimensat(AT_FDCWD, (*work / "info.json").c_str(), times.data(), 0);
  }
  if (::renameat2(AT_FDCWD, work->c_str(), AT_FDCWD, target.c_str(), RENAME_EXCHANGE) != 0) {
    const auto error = errno_error("swap " + target.string(), errno);
    ::rename((*work / payload_).c_str(), staged.c_str());
    static_cast<void>(discard(*work));  // the error that counts is the first
    return fail(error);
  }
  // The new name is durable before the old files go.
  if (auto done = sys::sync_path(target.parent_path()); !done) return done;
  return discard(*work);
}

}  // namespace educloud::image
