#include "clc/store/sql.hpp"

#include "clc/store/sql_impl.hpp"

namespace educloud::clc::store {

std::int64_t Row::number(std::size_t column) const {
  const auto* held = std::get_if<std::int64_t>(&values_.at(column));
  return held ? *held : 0;
}

const std::string& Row::text(std::size_t column) const {
  static const std::string kEmpty;
  const auto* held = std::get_if<std::string>(&values_.at(column));
  return held ? *held : kEmpty;
}

Error sqlite_error(const SQLite::Exception& exception, std::string_view what) {
  const int code = exception.getErrorCode() & 0xff;
  ErrorCode mapped = ErrorCode::internal;
  if (code == SQLITE_FULL) mapped = ErrorCode::exhausted;
  if (code == SQLITE_BUSY || code == SQLITE_LOCKED) mapped = ErrorCode::unavailable;
  if (code == SQLITE_CORRUPT || code == SQLITE_NOTADB) mapped = ErrorCode::corrupt;
  if (code == SQLITE_CONSTRAINT) mapped = ErrorCode::conflict;
  return Error{mapped, std::string(what) + ": " + exception.what()};
}

Sql::Sql(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Sql::~Sql() = default;

namespace {

// Bounds the statements kept; every text in the sources is a constant, so this is never reached unless
// somebody builds SQL from values, which must not be.
constexpr std::size_t kStatements = 300;

SQLite::Statement& prepared(Sql::Impl& impl, std::string_view sql, std::initializer_list<Value> values) {
  auto at = impl.statements.find(sql);
  if (at == impl.statements.end()) {
    if (impl.statements.size() >= kStatements) impl.statements.clear();
    auto made = std::make_unique<SQLite::Statement>(impl.db, std::string(sql));
    at = impl.statements.emplace(std::string(sql), std::move(made)).first;
  }
  auto& statement = *at->second;
  statement.clearBindings();
  int index = 0;
  for (const auto& value : values) {
    ++index;
    std::visit(
        [&](const auto& one) {
          using T = std::decay_t<decltype(one)>;
          if constexpr (std::is_same_v<T, std::nullptr_t>) {
            statement.bind(index);
          } else {
            statement.bind(index, one);
          }
        },
        value.held());
  }
  return statement;
}

// A statement left in the middle would keep its snapshot open.
struct Resetter {
  SQLite::Statement& statement;
  ~Resetter() { statement.tryReset(); }
};

}  // namespace

int Sql::run(std::string_view sql, std::initializer_list<Value> values) {
  try {
    auto& statement = prepared(*impl_, sql, values);
    const Resetter resetter{statement};
    return statement.exec();
  } catch (const SQLite::Exception& exception) {
    throw Abort{sqlite_error(exception, "database")};
  }
}

std::vector<Row> Sql::all(std::string_view sql, std::initializer_list<Value> values) {
  try {
    auto& statement = prepared(*impl_, sql, values);
    const Resetter resetter{statement};
    std::vector<Row> rows;
    while (statement.executeStep()) {
      Row row;
      const int columns = statement.getColumnCount();
      row.values_.reserve(static_cast<std::size_t>(columns));
      for (int i = 0; i < columns; ++i) {
        const auto column = statement.getColumn(i);
        if (column.isInteger()) {
          row.values_.emplace_back(std::int64_t{column.getInt64()});
        } else if (column.isNull()) {
          row.values_.emplace_back(nullptr);
        } else {
          row.values_.emplace_back(column.getString());
        }
      }
      rows.push_back(std::move(row));
    }
    return rows;
  } catch (const SQLite::Exception& exception) {
    throw Abort{sqlite_error(exception, "database")};
  }
}

std::optional<Row> Sql::one(std::string_view sql, std::initializer_list<Value> values) {
  auto rows = all(sql, values);
  if (rows.empty()) return std::nullopt;
  return std::move(rows.front());
}

std::int64_t Sql::number(std::string_view sql, std::initializer_list<Value> values) {
  const auto row = one(sql, values);
  return row ? row->number(0) : 0;
}

std::int64_t Sql::last_row_id() const {
  return impl_->db.getLastInsertRowid();
}

}  // namespace educloud::clc::store
