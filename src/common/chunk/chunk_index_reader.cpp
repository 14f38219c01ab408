#include "common/chunk/chunk_index_sql.hpp"

namespace educloud::chunk {
namespace {

constexpr int kBusyTimeoutMs = 10'000;
constexpr const char* kRow = "place, prefix, rest, length, raw_bytes, dead_since";

IndexRow row_of(SQLite::Statement& query) {
  const auto number = [&](int column) { return query.getColumn(column).getInt64(); };
  IndexRow row;
  const auto prefix = number(1);
  std::memcpy(row.id.bytes.data(), &prefix, sizeof prefix);
  const auto rest = query.getColumn(2);
  if (rest.getBytes() == sql::kRestBytes) {
    std::memcpy(row.id.bytes.data() + sizeof prefix, rest.getBlob(), sql::kRestBytes);
  }
  row.place =
      sql::place_of(number(0), static_cast<std::uint32_t>(number(3)), static_cast<std::uint32_t>(number(4)));
  row.dead_since = number(5);
  return row;
}

}  // namespace

struct IndexReader::Impl {
  explicit Impl(const std::string& path)
      : file(path), db(path, SQLite::OPEN_READONLY | SQLite::OPEN_NOMUTEX, kBusyTimeoutMs) {
    db.exec("PRAGMA cache_size = -8192");
  }
  std::string file;
  SQLite::Database db;
  std::optional<SQLite::Statement> find, add;

  void prepare_find() {
    if (!find) find.emplace(db, std::string("SELECT ") + kRow + " FROM chunks WHERE prefix = ?");
  }

  std::optional<IndexRow> look_up(const ChunkId& id) {
    find->tryReset();
    find->bind(1, sql::prefix_of(id));
    while (find->executeStep()) {
      auto row = row_of(*find);
      if (row.id == id) return row;
    }
    return std::nullopt;
  }
};

IndexReader::IndexReader(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
IndexReader::~IndexReader() = default;

Result<std::unique_ptr<IndexReader>> IndexReader::open(const std::filesystem::path& file) {
  std::error_code error;
  if (!std::filesystem::exists(file, error)) {
    return fail(ErrorCode::not_found, file.string() + " is not there: no chunks are kept here");
  }
  return sql::guarded(file.string(), [&]() -> Result<std::unique_ptr<IndexReader>> {
    auto impl = std::make_unique<Impl>(file.string());
    impl->prepare_find();  // refuses what is no index
    return std::unique_ptr<IndexReader>(new IndexReader(std::move(impl)));
  });
}

Result<> IndexReader::find(std::span<const ChunkId> ids, const std::function<bool(std::size_t)>& wanted,
                           std::vector<std::optional<IndexRow>>& out) {
  return sql::guarded(impl_->file, [&]() -> Result<> {
    SQLite::Transaction snapshot(impl_->db);  // one lock of the file for all
    for (std::size_t i = 0; i < ids.size(); ++i) {
      if (wanted(i)) out[i] = impl_->look_up(ids[i]);
    }
    impl_->find->tryReset();
    snapshot.commit();
    return {};
  });
}

Result<std::vector<IndexRow>> IndexReader::after(std::int64_t key, std::int64_t end, std::size_t limit) {
  return sql::guarded(impl_->file, [&]() -> Result<std::vector<IndexRow>> {
    std::vector<IndexRow> rows;
    SQLite::Statement query(impl_->db, std::string("SELECT ") + kRow +
                                           " FROM chunks WHERE place > ? AND place < ? "
                                           "ORDER BY place LIMIT ?");
    query.bind(1, key);
    query.bind(2, end);
    query.bind(3, static_cast<std::int64_t>(limit));
    while (query.executeStep()) rows.push_back(row_of(query));
    return rows;
  });
}

Result<std::uint64_t> IndexReader::live_bytes(std::uint32_t pack) {
  return sql::guarded(impl_->file, [&]() -> Result<std::uint64_t> {
    SQLite::Statement query(impl_->db, "SELECT total(length) FROM chunks WHERE place >= ? AND place < ?");
    query.bind(1, Place::first_key(pack));
    query.bind(2, Place::first_key(pack + 1));
    query.executeStep();
    return static_cast<std::uint64_t>(query.getColumn(0).getDouble());
  });
}

Result<std::optional<IndexRow>> IndexReader::last_of(std::uint32_t pack) {
  return sql::guarded(impl_->file, [&]() -> Result<std::optional<IndexRow>> {
    SQLite::Statement query(impl_->db, std::string("SELECT ") + kRow +
                                           " FROM chunks WHERE place >= ? AND place < ? "
                                           "ORDER BY place DESC LIMIT 1");
    query.bind(1, Place::first_key(pack));
    query.bind(2, Place::first_key(pack + 1));
    if (!query.executeStep()) return std::optional<IndexRow>{};
    return std::optional(row_of(query));
  });
}

Result<std::vector<std::uint32_t>> IndexReader::packs() {
  return sql::guarded(impl_->file, [&]() -> Result<std::vector<std::uint32_t>> {
    std::vector<std::uint32_t> packs;
    SQLite::Statement query(impl_->db, "SELECT place FROM chunks WHERE place >= ? ORDER BY place LIMIT 1");
    for (std::int64_t from = 0;;) {
      query.reset();
      query.bind(1, from);
      if (!query.executeStep()) return packs;
      packs.push_back(sql::place_of(query.getColumn(0).getInt64(), 0, 0).pack);
      from = Place::first_key(packs.back() + 1);
    }
  });
}

Result<std::map<std::uint32_t, std::uint64_t>> IndexReader::uses() {
  return sql::guarded(impl_->file, [&]() -> Result<std::map<std::uint32_t, std::uint64_t>> {
    std::map<std::uint32_t, std::uint64_t> uses;
    SQLite::Statement query(impl_->db, "SELECT pack, used FROM packs");
    while (query.executeStep()) {
      uses[query.getColumn(0).getUInt()] = static_cast<std::uint64_t>(query.getColumn(1).getInt64());
    }
    return uses;
  });
}

Result<IndexTotals> IndexReader::totals() {
  return sql::guarded(impl_->file, [&]() -> Result<IndexTotals> {
    SQLite::Statement query(impl_->db, "SELECT chunks, raw_bytes, stored_bytes FROM totals");
    if (!query.executeStep()) return fail(ErrorCode::corrupt, impl_->file + " has no totals");
    const auto number = [&](int column) {
      return static_cast<std::uint64_t>(query.getColumn(column).getInt64());
    };
    return IndexTotals{number(0), number(1), number(2)};
  });
}

Result<> IndexReader::clear_marks() {
  return sql::guarded(impl_->file, [&]() -> Result<> {
    impl_->db.exec("CREATE TEMP TABLE IF NOT EXISTS live(place INTEGER PRIMARY KEY)");
    impl_->db.exec("DELETE FROM temp.live");
    if (!impl_->add) impl_->add.emplace(impl_->db, "INSERT OR IGNORE INTO temp.live(place) VALUES(?)");
    return {};
  });
}

Result<> IndexReader::mark(std::span<const ChunkId> ids) {
  return sql::guarded(impl_->file, [&]() -> Result<> {
    SQLite::Transaction transaction(impl_->db);
    for (const auto& id : ids) {
      const auto row = impl_->look_up(id);
      if (!row) continue;
      impl_->add->tryReset();
      impl_->add->bind(1, row->place.key());
      impl_->add->exec();
    }
    impl_->find->tryReset();
    impl_->add->tryReset();
    transaction.commit();
    return {};
  });
}

Result<std::vector<IndexReader::MarkedRow>> IndexReader::marked_after(std::int64_t key, std::size_t limit) {
  return sql::guarded(impl_->file, [&]() -> Result<std::vector<MarkedRow>> {
    std::vector<MarkedRow> rows;
    SQLite::Statement query(impl_->db, std::string("SELECT ") + kRow +
                                           ", EXISTS(SELECT 1 FROM temp.live WHERE live.place = chunks.place)"
                                           " FROM chunks WHERE place > ? ORDER BY place LIMIT ?");
    query.bind(1, key);
    query.bind(2, static_cast<std::int64_t>(limit));
    while (query.executeStep()) rows.push_back({row_of(query), query.getColumn(6).getInt() != 0});
    return rows;
  });
}

}  // namespace educloud::chunk
