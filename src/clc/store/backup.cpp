#include "clc/store/backup.hpp"

#include <SQLiteCpp/Backup.h>
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <thread>

#include "clc/store/backup_names.hpp"
#include "clc/store/database_file.hpp"
#include "clc/store/sql_impl.hpp"
#include "common/base/random.hpp"
#include "common/obs/log.hpp"

namespace educloud::clc::store {
namespace {

namespace fs = std::filesystem;

constexpr int kStepPages = 256;  ///< 1 MiB at a time, so that the daemon's own commits get at the disk
constexpr std::chrono::milliseconds kStepPause{2};
constexpr std::uint64_t kReserveBytes = 64ull << 20;  ///< that a copy leaves free, for the database itself
/// Added to epochs by a restore: more than anybody has started the same desktop since the backup.
constexpr int kEpochStep = 1000;

/// A file that goes with its SQLite company unless it was given its name.
class Temporary {
 public:
  explicit Temporary(const fs::path& target)
      : path_(target.parent_path() / ("." + target.filename().string() + "." + random_hex(6) + ".tmp")) {}
  ~Temporary() {
    for (const auto* end : {"", "-wal", "-shm", "-journal"}) ::unlink((path_.string() + end).c_str());
  }
  Temporary(const Temporary&) = delete;
  Temporary& operator=(const Temporary&) = delete;
  const fs::path& path() const { return path_; }

  /// 0600.
  Result<sys::Fd> make() const {
    auto fd = sys::open_file(path_, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (!fd) return fd;
    if (auto ok = own_like_folder(fd->get(), path_.parent_path()); !ok) return fail(ok.error());
    return fd;
  }

 private:
  fs::path path_;
};

Result<> check_space(const fs::path& folder, std::uint64_t bytes) {
  const auto space = sys::disk_space(folder);
  if (!space) return fail(space.error());
  if (space->free_bytes >= bytes + kReserveBytes) return {};
  return fail(ErrorCode::exhausted, "a copy of the database needs " +
                                        std::to_string((bytes + kReserveBytes) >> 20) + " MiB free in " +
                                        folder.string() + ", there are " +
                                        std::to_string(space->free_bytes >> 20) + " MiB");
}

std::uint64_t size_of(const fs::path& file) {
  std::error_code error;
  const auto size = fs::file_size(file, error);
  return error ? 0 : size;
}

Result<> copy_pages(const fs::path& from, const fs::path& to, const std::stop_token& stop) {
  try {
    SQLite::Database source(from.string(), SQLite::OPEN_READONLY, 5000);
    // One snapshot for all steps: without it each commit of the writer would start the copy again.
    source.exec("BEGIN");
    source.execAndGet("SELECT COUNT(*) FROM sqlite_schema");
    SQLite::Database copy(to.string(), SQLite::OPEN_READWRITE, 5000);
    copy.exec("PRAGMA synchronous=OFF");  // synced as a whole afterwards
    {
      SQLite::Backup backup(copy, source);
      while (backup.executeStep(kStepPages) != SQLITE_DONE) {
        if (stop.stop_requested()) return fail(ErrorCode::unavailable, "the backup was stopped: clc ends");
        std::this_thread::sleep_for(kStepPause);
      }
    }
    copy.exec("PRAGMA journal_mode=DELETE");  // one file with everything in it
    return {};
  } catch (const SQLite::Exception& exception) {
    return fail(sqlite_error(exception, "copying " + from.string()));
  }
}

Result<> sync_and_forget(int fd, const fs::path& path) {
  if (::fsync(fd) != 0) return fail(errno_error("fsync " + path.string(), errno));
  ::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);  // what is read back comes from the disk
  return {};
}

/// Never over a file that is there.
Result<> give_name(const fs::path& from, const fs::path& to) {
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) != 0) {
    if (errno == EEXIST) return fail(ErrorCode::conflict, to.string() + " is there already");
    return fail(errno_error("rename to " + to.string(), errno));
  }
  return sys::sync_path(to.parent_path());
}

Result<> make_folder(const fs::path& folder) {
  std::error_code error;
  if (fs::exists(folder, error)) return {};
  if (auto ok = sys::make_directories(folder, 0700); !ok) return ok;
  auto fd = sys::open_file(folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  if (!fd) return fail(fd.error());
  return own_like_folder(fd->get(), folder.parent_path());
}

}  // namespace

Result<BackupMade> copy_database(const fs::path& database, const fs::path& target,
                                 const std::stop_token& stop) {
  const auto began = std::chrono::steady_clock::now();
  if (auto ok = make_folder(target.parent_path()); !ok) return fail(ok.error());
  const auto bytes = size_of(database) + size_of(database.string() + "-wal");
  if (auto ok = check_space(target.parent_path(), bytes); !ok) return fail(ok.error());
  const Temporary beside(target);
  auto fd = beside.make();
  if (!fd) return fail(fd.error());
  if (auto ok = copy_pages(database, beside.path(), stop); !ok) return fail(ok.error());
  if (auto ok = sync_and_forget(fd->get(), beside.path()); !ok) return fail(ok.error());
  auto schema = check_database(beside.path(), true);
  if (!schema) return fail(schema.error());
  if (auto ok = give_name(beside.path(), target); !ok) return fail(ok.error());
  BackupMade made{target, static_cast<std::int64_t>(size_of(target)), 0};
  made.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  return made;
}

void remove_unfinished(const fs::path& folder) {
  std::error_code error;
  fs::directory_iterator files(folder, error);
  for (; !error && files != fs::directory_iterator(); files.increment(error)) {
    const std::string name = files->path().filename().string();
    const bool ours = name.starts_with(".clc") || name.starts_with("." + std::string(kBeforeMigration));
    std::error_code ignored;
    if (ours && name.find(".tmp") != std::string::npos) fs::remove(files->path(), ignored);
  }
}

Result<> copy_before_migration(const fs::path& database, int from, std::int64_t wall_ms) {
  const std::string prefix = std::string(kBeforeMigration) + std::to_string(from) + "-";
  const auto target = backup_folder(database) / backup_name(prefix, wall_ms);
  auto made = copy_database(database, target);
  if (!made) return fail(made.error(), "the copy before bringing " + database.string() + " up to date");
  obs::info("store.copied", {{"file", target.string()}, {"schema", from}, {"bytes", made->bytes}});
  return {};
}

namespace {

Result<> copy_file(const fs::path& from, int to) {
  auto source = sys::open_file(from, O_RDONLY);
  if (!source) return fail(source.error());
  std::string buffer(1 << 20, '\0');
  while (true) {
    const ssize_t got = ::read(source->get(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(errno_error("read " + from.string(), errno));
    if (got == 0) return {};
    if (auto ok = sys::write_all(to, std::string_view(buffer).substr(0, static_cast<std::size_t>(got))); !ok)
      return ok;
  }
}

Result<int> check_ours(const fs::path& copy, const fs::path& from) {
  auto schema = check_database(copy, true);
  if (!schema) return fail(schema.error().code, from.string() + " is damaged: " + schema.error().message);
  if (*schema > newest_schema()) {
    return fail(ErrorCode::invalid_argument,
                from.string() + " has schema " + std::to_string(*schema) + ", this program knows up to " +
                    std::to_string(newest_schema()) + ": it was made by a newer version");
  }
  try {
    SQLite::Database db(copy.string(), SQLite::OPEN_READWRITE, 5000);
    const int tables =
        db.execAndGet("SELECT COUNT(*) FROM sqlite_schema WHERE name IN ('accounts', 'images', 'tasks')")
            .getInt();
    if (*schema >= 3 && tables == 3) return schema;
  } catch (const SQLite::Exception& exception) {
    return fail(sqlite_error(exception, from.string()));
  }
  return fail(ErrorCode::invalid_argument, from.string() + " is not a database of clc");
}

/// What must not go back in time does not.
Result<Restored> adjust(const fs::path& copy, int schema, const std::string& name, std::int64_t wall_ms) {
  try {
    SQLite::Database db(copy.string(), SQLite::OPEN_READWRITE, 5000);
    db.exec("PRAGMA foreign_keys=ON");
    SQLite::Transaction transaction(db, SQLite::TransactionBehavior::IMMEDIATE);
    const std::string step = std::to_string(kEpochStep);
    // An open task's command is known to its node by its epoch: that one stays.
    db.exec("UPDATE tasks SET epoch = epoch + " + step + " WHERE state = 'gone'");
    if (schema >= 7) db.exec("UPDATE nodes SET lease_epoch = lease_epoch + " + step);
    db.exec("DELETE FROM tokens");
    SQLite::Statement audit(db,
                            "INSERT INTO audit (at, account, action, object, detail) VALUES (?, ?, ?, ?, ?)");
    audit.bind(1, wall_ms);
    audit.bind(2, "operator");
    audit.bind(3, "restore");
    audit.bind(4, name);
    audit.bind(5, "");
    audit.exec();
    Restored out;
    out.schema = schema;
    out.accounts = db.execAndGet("SELECT COUNT(*) FROM accounts").getInt64();
    out.images = db.execAndGet("SELECT COUNT(*) FROM images").getInt64();
    out.open_tasks = db.execAndGet("SELECT COUNT(*) FROM tasks WHERE state <> 'gone'").getInt64();
    transaction.commit();
    db.exec("PRAGMA journal_mode=DELETE");
    return out;
  } catch (const SQLite::Exception& exception) {
    return fail(sqlite_error(exception, copy.string()));
  }
}

/// Empties the write-ahead log of a database into it. False if it is too damaged for that.
bool absorb_log(const fs::path& database) {
  try {
    SQLite::Database db(database.string(), SQLite::OPEN_READWRITE, 5000);
    SQLite::Statement checkpoint(db, "PRAGMA wal_checkpoint(TRUNCATE)");
    return checkpoint.executeStep() && checkpoint.getColumn(0).getInt() == 0;
  } catch (const SQLite::Exception&) {
    return false;
  }
}

/// `database` stays in its place and gets a second name; its log, which must never meet another database,
/// goes.
Result<> set_aside(const fs::path& database, const fs::path& aside) {
  const bool whole = absorb_log(database);
  if (::link(database.c_str(), aside.c_str()) != 0) return fail(errno_error("link " + aside.string(), errno));
  const auto log = database.string() + "-wal", kept_log = aside.string() + "-wal";
  if (!whole && ::rename(log.c_str(), kept_log.c_str()) != 0 && errno != ENOENT)
    return fail(errno_error("rename to " + kept_log, errno));
  for (const auto* end : {"-wal", "-shm"}) {
    const auto file = database.string() + end;
    if (::unlink(file.c_str()) != 0 && errno != ENOENT) return fail(errno_error("unlink " + file, errno));
  }
  return sys::sync_path(database.parent_path());
}

}  // namespace

Result<> copy_backup(const fs::path& from, const fs::path& to) {
  if (auto ok = check_space(to.parent_path(), size_of(from)); !ok) return ok;
  const Temporary beside(to);
  auto fd = sys::open_file(beside.path(), O_WRONLY | O_CREAT | O_EXCL, 0600);
  if (!fd) return fail(fd.error());
  if (auto ok = copy_file(from, fd->get()); !ok) return ok;
  if (auto ok = sync_and_forget(fd->get(), beside.path()); !ok) return ok;
  return give_name(beside.path(), to);
}

Result<Restored> restore_database(const fs::path& database, const fs::path& from, std::int64_t wall_ms) {
  auto lock = lock_database(database);
  if (!lock) return fail(lock.error());
  std::error_code error;
  if (!fs::is_regular_file(from, error))
    return fail(ErrorCode::not_found, from.string() + " is not there, or no ordinary file");
  if (size_of(from.string() + "-wal") > 0) {
    return fail(ErrorCode::invalid_argument,
                from.string() + " has a write-ahead log beside it: it is no backup, but a database in use");
  }
  if (auto ok = check_space(database.parent_path(), size_of(from)); !ok) return fail(ok.error());
  remove_unfinished(database.parent_path());
  const Temporary beside(database);
  auto fd = beside.make();
  if (!fd) return fail(fd.error());
  if (auto ok = copy_file(from, fd->get()); !ok) return fail(ok.error());
  auto schema = check_ours(beside.path(), from);
  if (!schema) return fail(schema.error());
  auto out = adjust(beside.path(), *schema, from.filename().string(), wall_ms);
  if (!out) return out;
  if (::fsync(fd->get()) != 0) return fail(errno_error("fsync " + beside.path().string(), errno));
  if (fs::exists(database, error)) {
    out->set_aside = database.string() + ".before-restore-" + time_stamp(wall_ms);
    if (auto ok = set_aside(database, out->set_aside); !ok) return fail(ok.error());
  }
  // From the one to the other in one step.
  if (::rename(beside.path().c_str(), database.c_str()) != 0)
    return fail(errno_error("rename to " + database.string(), errno));
  if (auto ok = sys::sync_path(database.parent_path()); !ok) return fail(ok.error());
  return out;
}

}  // namespace educloud::clc::store
