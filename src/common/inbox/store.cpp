#include "common/inbox/store.hpp"

#include <fcntl.h>
#include <sqlite3.h>
#include <unistd.h>

#include <cerrno>
#include <map>

#include <SQLiteCpp/SQLiteCpp.h>

namespace educloud::inbox {
namespace {

constexpr int kSchemaVersion = 1;
constexpr int kBusyTimeoutMs = 5000;

constexpr const char* kSchema = R"sql(
CREATE TABLE inbox(
  cmdid TEXT PRIMARY KEY,
  tid TEXT NOT NULL,
  received_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX inbox_received ON inbox(received_ms);
CREATE TABLE tasks(
  tid TEXT PRIMARY KEY,
  cmdid TEXT NOT NULL,
  op TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  command TEXT NOT NULL,
  status TEXT NOT NULL,
  sent INTEGER NOT NULL,
  finished INTEGER NOT NULL,
  updated_ms INTEGER NOT NULL
) WITHOUT ROWID;
PRAGMA user_version = 1;
)sql";

tl::unexpected<Error> database_error(const std::string& file, const SQLite::Exception& e) {
  const int code = e.getErrorCode() & 0xff;
  const std::string text = file + ": " + e.what();
  if (code == SQLITE_FULL) return fail(ErrorCode::exhausted, text + "; make room on this file system");
  if (code == SQLITE_CORRUPT || code == SQLITE_NOTADB) {
    return fail(ErrorCode::corrupt, text + "; move the file away: open commands are sent again");
  }
  return fail(ErrorCode::internal, text);
}

}  // namespace

struct Store::Impl {
  explicit Impl(const std::string& path) : file(path), db(path, SQLite::OPEN_READWRITE, kBusyTimeoutMs) {}
  std::string file;
  SQLite::Database db;
  /// By text, each of which is a constant of this file. Before `db` they must not go.
  std::map<std::string_view, std::unique_ptr<SQLite::Statement>> statements;
  std::map<std::string, std::int64_t> sent;  ///< tid -> seq that the broker has and the file does not say yet

  enum class Sync { no, yes };

  SQLite::Statement& prepared(const char* sql) {
    auto& statement = statements[sql];
    if (!statement) statement = std::make_unique<SQLite::Statement>(db, sql);
    statement->reset();
    statement->clearBindings();
    return *statement;
  }

  /// Runs `work` and what waits in one transaction; SQLite's exceptions end here.
  template <class Work>
  Result<> commit(Sync sync, const Work& work) {
    try {
      // In WAL mode NORMAL only leaves out the sync of a commit: the file is whole after any crash.
      db.exec(sync == Sync::yes ? "PRAGMA synchronous = FULL" : "PRAGMA synchronous = NORMAL");
      SQLite::Transaction transaction(db, SQLite::TransactionBehavior::IMMEDIATE);
      for (const auto& [tid, seq] : sent) {
        auto& put = prepared("UPDATE tasks SET sent = 1 WHERE tid = ? AND seq = ?");
        put.bind(1, tid);
        put.bind(2, seq);
        put.exec();
      }
      work();
      transaction.commit();
      sent.clear();
      return {};
    } catch (const SQLite::Exception& e) {
      return database_error(file, e);
    }
  }
};

Store::Store(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Store::~Store() {
  (void)flush();
}

Result<std::unique_ptr<Store>> Store::open(const std::filesystem::path& file) {
  // Made by us and not by SQLite, so that it is never readable by others, not even for a moment.
  const int fd = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return fail(errno_error("open " + file.string(), errno));
  ::close(fd);
  try {
    auto impl = std::make_unique<Impl>(file.string());
    impl->db.exec("PRAGMA journal_mode = WAL");
    impl->db.exec("PRAGMA synchronous = FULL");
    const int version = impl->db.execAndGet("PRAGMA user_version").getInt();
    if (version > kSchemaVersion) {
      return fail(ErrorCode::internal, file.string() + " was written by a newer educloud (schema " +
                                           std::to_string(version) + "); install that version again");
    }
    if (version == 0) {
      SQLite::Transaction transaction(impl->db, SQLite::TransactionBehavior::IMMEDIATE);
      impl->db.exec(kSchema);
      transaction.commit();
    }
    // Synced, so that no two starts begin at the same number.
    impl->db.exec("UPDATE tasks SET seq = seq + " + std::to_string(kSeqStep));
    return std::unique_ptr<Store>(new Store(std::move(impl)));
  } catch (const SQLite::Exception& e) {
    return database_error(file.string(), e);
  }
}

Result<std::vector<Row>> Store::load() {
  try {
    std::vector<Row> rows;
    SQLite::Statement query(impl_->db,
                            "SELECT tid, cmdid, op, epoch, attempt, seq, command, status, sent, finished, "
                            "updated_ms FROM tasks ORDER BY cmdid");
    while (query.executeStep()) {
      Row row;
      row.tid = query.getColumn(0).getString();
      row.cmdid = query.getColumn(1).getString();
      row.op = query.getColumn(2).getString();
      row.epoch = query.getColumn(3).getInt64();
      row.attempt = query.getColumn(4).getInt64();
      row.seq = query.getColumn(5).getInt64();
      row.command = query.getColumn(6).getString();
      row.status = query.getColumn(7).getString();
      row.sent = query.getColumn(8).getInt() != 0;
      row.finished = query.getColumn(9).getInt() != 0;
      row.updated_ms = query.getColumn(10).getInt64();
      rows.push_back(std::move(row));
    }
    return rows;
  } catch (const SQLite::Exception& e) {
    return database_error(impl_->file, e);
  }
}

Result<bool> Store::knows(const std::string& cmdid) {
  try {
    auto& query = impl_->prepared("SELECT 1 FROM inbox WHERE cmdid = ?");
    query.bind(1, cmdid);
    const bool found = query.executeStep();
    query.reset();
    return found;
  } catch (const SQLite::Exception& e) {
    return database_error(impl_->file, e);
  }
}

Result<> Store::put_command(const Row& row) {
  return impl_->commit(Impl::Sync::yes, [&] {
    auto& remember = impl_->prepared("INSERT OR IGNORE INTO inbox(cmdid, tid, received_ms) VALUES(?, ?, ?)");
    remember.bind(1, row.cmdid);
    remember.bind(2, row.tid);
    remember.bind(3, row.updated_ms);
    remember.exec();
    auto& put = impl_->prepared(
        "INSERT OR REPLACE INTO tasks(tid, cmdid, op, epoch, attempt, seq, command, status, "
        "sent, finished, updated_ms) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
    put.bind(1, row.tid);
    put.bind(2, row.cmdid);
    put.bind(3, row.op);
    put.bind(4, row.epoch);
    put.bind(5, row.attempt);
    put.bind(6, row.seq);
    put.bind(7, row.command);
    put.bind(8, row.status);
    put.bind(9, row.sent ? 1 : 0);
    put.bind(10, row.finished ? 1 : 0);
    put.bind(11, row.updated_ms);
    put.exec();
  });
}

Result<> Store::put_status(const std::string& tid, std::int64_t seq, const std::string& status, bool finished,
                           std::int64_t now_ms) {
  return impl_->commit(Impl::Sync::no, [&] {
    auto& put = impl_->prepared(
        "UPDATE tasks SET seq = ?, status = ?, sent = 0, finished = ?, updated_ms = ? WHERE tid = ?");
    put.bind(1, seq);
    put.bind(2, status);
    put.bind(3, finished ? 1 : 0);
    put.bind(4, now_ms);
    put.bind(5, tid);
    put.exec();
  });
}

void Store::mark_sent(const std::string& tid, std::int64_t seq) {
  impl_->sent[tid] = seq;
}

Result<> Store::flush() {
  if (impl_->sent.empty()) return {};
  return impl_->commit(Impl::Sync::no, [] {});
}

Result<> Store::forget_task(const std::string& tid) {
  return impl_->commit(Impl::Sync::no, [&] {
    auto& drop = impl_->prepared("DELETE FROM tasks WHERE tid = ?");
    drop.bind(1, tid);
    drop.exec();
  });
}

Result<> Store::forget_commands(std::int64_t before_ms, std::size_t keep) {
  return impl_->commit(Impl::Sync::no, [&] {
    auto& drop = impl_->prepared(
        "DELETE FROM inbox WHERE cmdid NOT IN (SELECT cmdid FROM tasks) AND (received_ms < ? "
        "OR cmdid IN (SELECT cmdid FROM inbox ORDER BY received_ms DESC LIMIT -1 OFFSET ?))");
    drop.bind(1, before_ms);
    drop.bind(2, static_cast<std::int64_t>(keep));
    drop.exec();
  });
}

}  // namespace educloud::inbox
