#include "clc/store/backup_names.hpp"

#include <algorithm>
#include <charconv>
#include <ctime>
#include <optional>
#include <set>

namespace educloud::clc::store {
namespace {

constexpr std::string_view kEnding = ".sqlite";
constexpr std::size_t kStampSize = 20;  ///< 20261121T070855.123Z
constexpr std::int64_t kDayMs = 24 * 3'600'000LL;

std::optional<std::int64_t> parse_stamp(std::string_view text) {
  if (text.size() != kStampSize || text[8] != 'T' || text[15] != '.' || text[19] != 'Z') return std::nullopt;
  const auto number = [&](std::size_t at, std::size_t size) {
    int value = -1;
    const char* end = text.data() + at + size;
    const auto [stop, error] = std::from_chars(text.data() + at, end, value);
    return error == std::errc() && stop == end ? value : -1;
  };
  std::tm when{};
  when.tm_year = number(0, 4) - 1900;
  when.tm_mon = number(4, 2) - 1;
  when.tm_mday = number(6, 2);
  when.tm_hour = number(9, 2);
  when.tm_min = number(11, 2);
  when.tm_sec = number(13, 2);
  const int ms = number(16, 3);
  const std::int64_t at = std::int64_t{::timegm(&when)} * 1000 + ms;
  // What is no date would come out as another one.
  if (ms < 0 || time_stamp(at) != text) return std::nullopt;
  return at;
}

std::optional<BackupFile> parse_name(const std::filesystem::path& file) {
  std::string_view kind;
  const std::string name = file.filename().string();
  std::string_view rest = name;
  if (!rest.ends_with(kEnding)) return std::nullopt;
  rest.remove_suffix(kEnding.size());
  if (rest.starts_with(kRegular)) {
    kind = "regular";
    rest.remove_prefix(kRegular.size());
  } else if (rest.starts_with(kBeforeMigration) && rest.size() > kStampSize) {
    kind = "before_migration";
    rest.remove_prefix(rest.size() - kStampSize);  // "<from>-" stands between
  } else {
    return std::nullopt;
  }
  const auto at = parse_stamp(rest);
  if (!at) return std::nullopt;
  return BackupFile{file, std::string(kind), *at, 0};
}

}  // namespace

std::filesystem::path backup_folder(const std::filesystem::path& database) {
  return database.parent_path() / "backups";
}

std::string time_stamp(std::int64_t wall_ms) {
  const std::time_t seconds = static_cast<std::time_t>(wall_ms / 1000);
  std::tm when{};
  ::gmtime_r(&seconds, &when);
  char text[24];
  const std::size_t size = std::strftime(text, sizeof text, "%Y%m%dT%H%M%S.", &when);
  const std::string ms = std::to_string(1000 + wall_ms % 1000).substr(1);
  return std::string(text, size) + ms + "Z";
}

std::string backup_name(std::string_view prefix, std::int64_t wall_ms) {
  return std::string(prefix) + time_stamp(wall_ms) + std::string(kEnding);
}

std::vector<BackupFile> list_backups(const std::filesystem::path& folder) {
  std::vector<BackupFile> out;
  std::error_code error;
  std::filesystem::directory_iterator files(folder, error);
  for (; !error && files != std::filesystem::directory_iterator(); files.increment(error)) {
    auto one = parse_name(files->path());
    std::error_code gone;
    if (!one || !files->is_regular_file(gone)) continue;
    const auto bytes = files->file_size(gone);
    if (gone) continue;
    one->bytes = static_cast<std::int64_t>(bytes);
    out.push_back(std::move(*one));
  }
  std::sort(out.begin(), out.end(),
            [](const auto& a, const auto& b) { return std::tie(a.at, a.file) < std::tie(b.at, b.file); });
  return out;
}

std::vector<BackupFile> outdated_backups(const std::vector<BackupFile>& files, std::size_t keep,
                                         std::size_t days, std::size_t keep_migrations) {
  std::vector<BackupFile> out;
  std::size_t regular = 0, migrations = 0;
  std::set<std::int64_t> days_seen;
  for (auto one = files.rbegin(); one != files.rend(); ++one) {
    if (one->kind != "regular") {
      if (++migrations > keep_migrations) out.push_back(*one);
      continue;
    }
    const bool last_of_its_day = days_seen.size() < days && days_seen.insert(one->at / kDayMs).second;
    if (++regular > keep && !last_of_its_day) out.push_back(*one);
  }
  return out;
}

}  // namespace educloud::clc::store
