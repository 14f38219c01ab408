#include "clc/store/database_file.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "clc/store/backup_names.hpp"
#include "clc/store/migrations.hpp"
#include "clc/store/sql_impl.hpp"

namespace educloud::clc::store {

Result<sys::Fd> lock_database(const std::filesystem::path& database) {
  const auto path = database.string() + ".lock";
  auto lock = sys::open_file(path, O_RDWR | O_CREAT, 0600);
  if (!lock) return fail(lock.error());
  if (auto ok = own_like_folder(lock->get(), database.parent_path()); !ok) return fail(ok.error());
  if (::flock(lock->get(), LOCK_EX | LOCK_NB) == 0) return lock;
  if (errno != EWOULDBLOCK) return fail(errno_error("flock " + path, errno));
  return fail(
      ErrorCode::conflict,
      database.string() + " is in use by another process (a running educloud-clc?): stop that one first");
}

Result<> own_like_folder(int fd, const std::filesystem::path& folder) {
  struct stat wanted {};
  if (::geteuid() != 0) return {};
  if (::stat(folder.empty() ? "." : folder.c_str(), &wanted) != 0)
    return fail(errno_error("stat " + folder.string(), errno));
  if (::fchown(fd, wanted.st_uid, wanted.st_gid) != 0)
    return fail(errno_error("chown in " + folder.string(), errno));
  return {};
}

Result<int> check_database(const std::filesystem::path& database, bool full) {
  try {
    SQLite::Database db(database.string(), SQLite::OPEN_READWRITE, 5000);
    const std::string verdict =
        db.execAndGet(full ? "PRAGMA integrity_check(1)" : "PRAGMA quick_check(1)").getString();
    if (verdict != "ok") return fail(ErrorCode::corrupt, database.string() + ": " + verdict);
    return db.execAndGet("PRAGMA user_version").getInt();
  } catch (const SQLite::Exception& exception) {
    return fail(sqlite_error(exception, database.string()));
  }
}

int newest_schema() {
  return migrations().back().version;
}

std::string restore_advice(const std::filesystem::path& database) {
  const auto copies = list_backups(backup_folder(database));
  if (copies.empty()) return "there is no backup in " + backup_folder(database).string();
  return "with clc stopped: educloud restore " + copies.back().file.string();
}

}  // namespace educloud::clc::store
