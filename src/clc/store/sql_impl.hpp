#pragma once

// Only for this folder's .cpp files: here SQLiteCpp is visible.

#include <SQLiteCpp/SQLiteCpp.h>
#include <sqlite3.h>

#include <map>
#include <memory>
#include <string>

#include "clc/store/sql.hpp"

namespace educloud::clc::store {

struct Sql::Impl {
  explicit Impl(const std::string& path, int flags) : db(path, flags, 5000) {}
  SQLite::Database db;
  std::map<std::string, std::unique_ptr<SQLite::Statement>, std::less<>> statements;
};

Error sqlite_error(const SQLite::Exception& exception, std::string_view what);

}  // namespace educloud::clc::store
