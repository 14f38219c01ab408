#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

/// How copies of the database are named, and which of them stay. Names carry the time, since a file's own
/// times change when it is copied.
namespace educloud::clc::store {

inline constexpr std::string_view kRegular = "clc-";  ///< made every few minutes, or when asked for
inline constexpr std::string_view kBeforeMigration = "before-migration-";

struct BackupFile {
  std::filesystem::path file;
  std::string kind;     ///< regular | before_migration
  std::int64_t at = 0;  ///< unix milliseconds, by its name
  std::int64_t bytes = 0;
};

/// `<state_dir>/backups` of `<state_dir>/clc.sqlite`.
std::filesystem::path backup_folder(const std::filesystem::path& database);

/// "20261121T070855.123Z".
std::string time_stamp(std::int64_t wall_ms);

/// "<prefix><stamp>.sqlite".
std::string backup_name(std::string_view prefix, std::int64_t wall_ms);

/// Those of ours in `folder`, oldest first; anything else there is left alone.
std::vector<BackupFile> list_backups(const std::filesystem::path& folder);

/// Which of `files` (oldest first) are not needed any more: of the regular ones all but the newest `keep`,
/// and the last one of each of the newest `days` days (UTC) that have any; of those before a migration all
/// but the newest `keep_migrations`.
std::vector<BackupFile> outdated_backups(const std::vector<BackupFile>& files, std::size_t keep,
                                         std::size_t days, std::size_t keep_migrations);

}  // namespace educloud::clc::store
