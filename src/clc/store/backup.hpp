#pragma once

#include <cstdint>
#include <filesystem>
#include <stop_token>

#include "common/base/result.hpp"

/// Copies of clc's database, made while it is in use, and the way back.
namespace educloud::clc::store {

struct BackupMade {
  std::filesystem::path file;
  std::int64_t bytes = 0;
  double seconds = 0;
};

/// Copies `database` as of one moment into the new file `target` (0600). Its writer goes on meanwhile: the
/// copy is one reader of the write-ahead log. The copy is made beside, synced, read back and checked before
/// it gets its name. Errors: exhausted (disk), corrupt (the copy does not check), conflict (`target` is
/// there), unavailable (stopped).
Result<BackupMade> copy_database(const std::filesystem::path& database, const std::filesystem::path& target,
                                 const std::stop_token& stop = {});

/// Removes what copies that were killed have left in `folder`. None may be under way there.
void remove_unfinished(const std::filesystem::path& folder);

/// Copies `database` into its folder of backups, as one of schema `from` before a migration. Errors: as
/// above.
Result<> copy_before_migration(const std::filesystem::path& database, int from, std::int64_t wall_ms);

/// Copies a backup to the new file `to` (0600), on another disk, say. Errors: exhausted, conflict (it is
/// there).
Result<> copy_backup(const std::filesystem::path& from, const std::filesystem::path& to);

struct Restored {
  std::filesystem::path set_aside;  ///< where the database from before is now; empty: there was none
  int schema = 0;
  std::int64_t accounts = 0, images = 0, open_tasks = 0;
};

/// Puts a copy of `from` in the place of `database`, whose clc must have been stopped; that one is kept
/// beside. All logins end; what counts upwards (epochs) goes on well above anything that may have been told
/// since, so that nothing from after the backup passes for news. Killed at any moment it leaves the old or
/// the new. Errors: conflict (clc runs), not_found, corrupt, invalid_argument (no database of clc, or of a
/// newer one).
Result<Restored> restore_database(const std::filesystem::path& database, const std::filesystem::path& from,
                                  std::int64_t wall_ms);

}  // namespace educloud::clc::store
