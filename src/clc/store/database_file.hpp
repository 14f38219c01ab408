#pragma once

#include <filesystem>

#include "common/base/result.hpp"
#include "common/sys/file.hpp"

/// The file that clc's database is, apart from what is in it.
namespace educloud::clc::store {

/// Larger ones are only looked through for broken pages at each start: indexes are not compared with tables.
inline constexpr std::uintmax_t kFullCheckBytes = 200ull << 20;

/// Held by whoever has `database` open for writing. SQLite's own locks would let two daemons take turns; both
/// would send commands. Errors: conflict (another process has it).
Result<sys::Fd> lock_database(const std::filesystem::path& database);

/// Gives what root has made beside the database to whom the folder belongs, else clc could not open it.
/// Nothing to do for anybody else.
Result<> own_like_folder(int fd, const std::filesystem::path& folder);

/// Reads `database` through. `full`: also whether indexes agree with tables. Returns its schema's number, 0
/// for an empty one. Errors: corrupt naming the first problem.
Result<int> check_database(const std::filesystem::path& database, bool full);

/// The newest number of a schema this program knows.
int newest_schema();

/// What to do when `database` is damaged, for a message: the newest backup and the command that restores it.
std::string restore_advice(const std::filesystem::path& database);

}  // namespace educloud::clc::store
