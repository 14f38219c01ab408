#include "support/commit_watch.hpp"

#include <dlfcn.h>
#include <gtest/gtest.h>
#include <sqlite3.h>

#include <atomic>
#include <memory>
#include <mutex>

namespace educloud::testing {
namespace {

using Statement = std::unique_ptr<sqlite3_stmt, int (*)(sqlite3_stmt*)>;

Statement prepare(sqlite3* db, const std::string& sql) {
  sqlite3_stmt* made = nullptr;
  EXPECT_EQ(sqlite3_prepare_v2(db, sql.c_str(), -1, &made, nullptr), SQLITE_OK) << sql << sqlite3_errmsg(db);
  return {made, sqlite3_finalize};
}

/// Each row a line.
std::string rows_of(sqlite3* db, const std::string& sql) {
  const auto query = prepare(db, sql);
  std::string text;
  int step = SQLITE_DONE;
  while (query && (step = sqlite3_step(query.get())) == SQLITE_ROW) {
    for (int i = 0; i < sqlite3_column_count(query.get()); ++i) {
      const auto* value = static_cast<const char*>(sqlite3_column_blob(query.get(), i));
      const auto size = static_cast<std::size_t>(sqlite3_column_bytes(query.get(), i));
      text.append(value == nullptr ? "" : std::string_view(value, size)) += '|';
    }
    text += '\n';
  }
  EXPECT_EQ(step, SQLITE_DONE) << sql << ": " << sqlite3_errmsg(db);
  return text;
}

std::string dump(sqlite3* db) {
  const auto schema = rows_of(db, "SELECT type, name, sql FROM sqlite_schema ORDER BY name");
  if (schema.empty()) return {};
  std::string text = schema + rows_of(db, "PRAGMA user_version");
  const auto tables = rows_of(db, "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name");
  for (std::size_t at = 0, end = 0; (end = tables.find("|\n", at)) != std::string::npos; at = end + 2) {
    const auto name = tables.substr(at, end - at);
    text += "== " + name + "\n" + rows_of(db, "SELECT * FROM \"" + name + "\"");
  }
  return text;
}

}  // namespace

namespace {

std::atomic<CommitWatch::Impl*> active = nullptr;

}  // namespace

struct CommitWatch::Impl {
  const DiskRecorder& recorder;
  const std::filesystem::path database;
  const int checkpoint_pages;
  std::mutex mutex;
  std::vector<Commit> commits;

  static int on_commit(void* self, sqlite3* db, const char* name, int pages) {
    // A connection may live longer than the watch.
    if (active != self) return SQLITE_OK;
    auto& watch = *static_cast<Impl*>(self);
    Commit commit;
    commit.position = watch.recorder.position();
    commit.synced = rows_of(db, "PRAGMA synchronous") == "2|\n";
    commit.content = dump(db);
    {
      const std::scoped_lock lock(watch.mutex);
      watch.commits.push_back(std::move(commit));
    }
    if (pages >= watch.checkpoint_pages)
      sqlite3_wal_checkpoint_v2(db, name, SQLITE_CHECKPOINT_PASSIVE, nullptr, nullptr);
    return SQLITE_OK;
  }
  void attach(sqlite3* db) {
    const char* file = sqlite3_db_filename(db, "main");
    if (file != nullptr && database == file) sqlite3_wal_hook(db, on_commit, this);
  }
};

CommitWatch::CommitWatch(const DiskRecorder& recorder, std::filesystem::path database, int checkpoint_pages)
    : impl_(new Impl{recorder, std::move(database), checkpoint_pages, {}, {}}) {
  if (active.exchange(impl_.get()) != nullptr) std::abort();
}

CommitWatch::~CommitWatch() {
  if (active == impl_.get()) active = nullptr;
}

std::vector<CommitWatch::Commit> CommitWatch::take() {
  active = nullptr;
  const std::scoped_lock lock(impl_->mutex);
  return std::move(impl_->commits);
}

std::vector<const std::string*> possible_contents(const std::vector<CommitWatch::Commit>& commits,
                                                  const std::string& before, std::size_t position) {
  std::vector<const std::string*> out{&before};
  for (const auto& commit : commits) {
    // Not told to be done yet, it may be done.
    if (commit.position <= position && commit.synced) out.clear();
    out.push_back(&commit.content);
    if (commit.position > position) break;
  }
  return out;
}

std::string dump_database(const std::filesystem::path& database) {
  if (!std::filesystem::exists(database)) return {};
  sqlite3* opened = nullptr;
  const int code = sqlite3_open_v2(database.c_str(), &opened, SQLITE_OPEN_READWRITE, nullptr);
  const std::unique_ptr<sqlite3, int (*)(sqlite3*)> db(opened, sqlite3_close);
  EXPECT_EQ(code, SQLITE_OK) << database;
  if (code != SQLITE_OK) return "?";
  // Whoever opens it next shall find the log as the cut has left it.
  sqlite3_db_config(db.get(), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
  return dump(db.get());
}

}  // namespace educloud::testing

/// In front of the library's own, which is called: the only place where a connection can be met before its
/// owner uses it (what sqlite3_auto_extension sets, opening resets).
extern "C" int sqlite3_open_v2(const char* file, sqlite3** db, int flags, const char* vfs) {
  using Open = int (*)(const char*, sqlite3**, int, const char*);
  static const auto real = reinterpret_cast<Open>(::dlsym(RTLD_NEXT, "sqlite3_open_v2"));
  const int code = real(file, db, flags, vfs);
  if (auto* watch = educloud::testing::active.load(); watch != nullptr && code == SQLITE_OK)
    watch->attach(*db);
  return code;
}
