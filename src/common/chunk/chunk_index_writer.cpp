#include <fcntl.h>

#include "common/chunk/chunk_index_sql.hpp"
#include "common/sys/file.hpp"

namespace educloud::chunk {
namespace {

constexpr int kSchemaVersion = 1;
constexpr int kBusyTimeoutMs = 10'000;

// place: Place::key(), so rows lie as the frames do. prefix, rest: the id.
constexpr const char* kSchema = R"sql(
CREATE TABLE chunks(
  place INTEGER PRIMARY KEY,
  prefix INTEGER NOT NULL,
  rest BLOB NOT NULL,
  length INTEGER NOT NULL,
  raw_bytes INTEGER NOT NULL,
  dead_since INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX chunks_prefix ON chunks(prefix);
CREATE TABLE packs(pack INTEGER PRIMARY KEY, used INTEGER NOT NULL);
CREATE TABLE totals(chunks INTEGER NOT NULL, raw_bytes INTEGER NOT NULL, stored_bytes INTEGER NOT NULL);
INSERT INTO totals VALUES(0, 0, 0);
PRAGMA user_version = 1;
)sql";

}  // namespace

struct IndexWriter::Impl {
  explicit Impl(const std::string& path)
      : file(path), db(path, SQLite::OPEN_READWRITE | SQLite::OPEN_NOMUTEX, kBusyTimeoutMs) {}

  struct Statements {
    explicit Statements(const SQLite::Database& db)
        : insert(db, "INSERT INTO chunks(place, prefix, rest, length, raw_bytes) VALUES(?, ?, ?, ?, ?)"),
          use(db, "INSERT OR REPLACE INTO packs(pack, used) VALUES(?, ?)"),
          revive(db, "UPDATE chunks SET dead_since = 0 WHERE place = ?"),
          note(db, "UPDATE chunks SET dead_since = ? WHERE place = ? AND dead_since = 0"),
          size(db, "SELECT length, raw_bytes, dead_since FROM chunks WHERE place = ?"),
          remove(db, "DELETE FROM chunks WHERE place = ?"),
          total(db,
                "UPDATE totals SET chunks = chunks + ?, raw_bytes = raw_bytes + ?, "
                "stored_bytes = stored_bytes + ?") {}
    SQLite::Statement insert, use, revive, note, size, remove, total;
  };

  /// Runs `work` in one transaction and saves what it added to `change`.
  template <class Work>
  Result<> transact(const Work& work) {
    change = {};
    return sql::guarded(file, [&]() -> Result<> {
      SQLite::Transaction transaction(db, SQLite::TransactionBehavior::IMMEDIATE);
      work();
      if (change.chunks != 0) {
        run(statements->total, static_cast<std::int64_t>(change.chunks),
            static_cast<std::int64_t>(change.raw_bytes), static_cast<std::int64_t>(change.stored_bytes));
      }
      transaction.commit();
      return {};
    });
  }

  template <class... Values>
  static int run(SQLite::Statement& statement, const Values&... values) {
    statement.tryReset();
    int column = 0;
    (statement.bind(++column, values), ...);
    return statement.exec();
  }

  /// False: not there, or not noted at or before `limit`.
  bool remove_row(std::int64_t key, std::int64_t limit = std::numeric_limits<std::int64_t>::max(),
                  bool only_dead = false) {
    auto& size = statements->size;
    size.tryReset();
    size.bind(1, key);
    if (!size.executeStep()) return false;
    const std::int64_t dead_since = size.getColumn(2).getInt64();
    if (only_dead && (dead_since == 0 || dead_since > limit)) return false;
    --change.chunks;
    change.stored_bytes -= static_cast<std::uint64_t>(size.getColumn(0).getInt64());
    change.raw_bytes -= static_cast<std::uint64_t>(size.getColumn(1).getInt64());
    size.reset();
    run(statements->remove, key);
    return true;
  }

  std::string file;
  SQLite::Database db;
  std::optional<Statements> statements;
  IndexTotals change;  ///< of the transaction that runs; wraps around where it sinks
};

IndexWriter::IndexWriter(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
IndexWriter::~IndexWriter() = default;

Result<std::unique_ptr<IndexWriter>> IndexWriter::open(const std::filesystem::path& file, bool durable) {
  // Made by us and not by SQLite, so that it is never readable by others, not even for a moment.
  if (auto fd = sys::open_file(file, O_RDWR | O_CREAT, 0600); !fd) return fail(fd.error());
  return sql::guarded(file.string(), [&]() -> Result<std::unique_ptr<IndexWriter>> {
    auto impl = std::make_unique<Impl>(file.string());
    impl->db.exec("PRAGMA journal_mode = WAL");
    // NORMAL: a power cut may undo the last transactions, but the file stays whole.
    impl->db.exec(durable ? "PRAGMA synchronous = FULL" : "PRAGMA synchronous = NORMAL");
    impl->db.exec("PRAGMA cache_size = -8192");
    impl->db.exec("PRAGMA journal_size_limit = 16777216");
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
    impl->statements.emplace(impl->db);
    return std::unique_ptr<IndexWriter>(new IndexWriter(std::move(impl)));
  });
}

Result<> IndexWriter::insert(std::span<const IndexRow> rows,
                             const std::map<std::uint32_t, std::uint64_t>& uses) {
  auto& impl = *impl_;
  return impl.transact([&] {
    auto& insert = impl.statements->insert;
    for (const auto& row : rows) {
      insert.tryReset();
      insert.bind(1, row.place.key());
      insert.bind(2, sql::prefix_of(row.id));
      insert.bindNoCopy(3, row.id.bytes.data() + sizeof(std::int64_t), sql::kRestBytes);
      insert.bind(4, row.place.length);
      insert.bind(5, row.place.raw_bytes);
      insert.exec();
      ++impl.change.chunks;
      impl.change.raw_bytes += row.place.raw_bytes;
      impl.change.stored_bytes += row.place.length;
    }
    for (const auto& [pack, used] : uses) {
      Impl::run(impl.statements->use, static_cast<std::int64_t>(pack), static_cast<std::int64_t>(used));
    }
  });
}

Result<std::vector<bool>> IndexWriter::revive(std::span<const std::int64_t> keys) {
  std::vector<bool> there(keys.size());
  auto done = impl_->transact([&] {
    for (std::size_t i = 0; i < keys.size(); ++i)
      there[i] = Impl::run(impl_->statements->revive, keys[i]) > 0;
  });
  if (!done) return fail(done.error());
  return there;
}

Result<> IndexWriter::remove(std::span<const std::int64_t> keys) {
  return impl_->transact([&] {
    for (const auto key : keys) impl_->remove_row(key);
  });
}

Result<std::uint64_t> IndexWriter::cut_pack(std::uint32_t pack, std::uint64_t end) {
  std::uint64_t removed = 0;
  auto done = impl_->transact([&] {
    std::vector<std::int64_t> keys;
    SQLite::Statement query(impl_->db,
                            "SELECT place FROM chunks WHERE place >= ? AND place < ? "
                            "AND place + length > ?");
    const auto first = Place::first_key(pack);
    query.bind(1, first);
    query.bind(2, Place::first_key(pack + 1));
    query.bind(3, end == 0 ? -1 : first + static_cast<std::int64_t>(end));
    while (query.executeStep()) keys.push_back(query.getColumn(0).getInt64());
    for (const auto key : keys) removed += impl_->remove_row(key) ? 1 : 0;
    if (end == 0) {
      SQLite::Statement forget(impl_->db, "DELETE FROM packs WHERE pack = ?");
      forget.bind(1, pack);
      forget.exec();
    }
  });
  if (!done) return fail(done.error());
  return removed;
}

Result<IndexWriter::Swept> IndexWriter::sweep(std::span<const std::int64_t> dead,
                                              std::span<const std::int64_t> removable, std::int64_t now,
                                              std::int64_t limit) {
  Swept swept;
  auto done = impl_->transact([&] {
    for (const auto key : removable) swept.removed += impl_->remove_row(key, limit, true) ? 1 : 0;
    for (const auto key : dead) {
      swept.newly_dead += Impl::run(impl_->statements->note, now, key) > 0 ? 1 : 0;
    }
  });
  if (!done) return fail(done.error());
  return swept;
}

}  // namespace educloud::chunk
