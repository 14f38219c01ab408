#include "clc/app/backups.hpp"

#include "common/obs/log.hpp"
#include "common/obs/metrics.hpp"

namespace educloud::clc {
namespace {

constexpr std::size_t kMigrationCopies = 5;
constexpr std::int64_t kRetryMs = 60'000;  ///< after one that failed

}  // namespace

Backups::Backups(BackupOptions options, const Clock& clock) : options_(std::move(options)), clock_(clock) {}
Backups::~Backups() {
  stop();
}

Result<store::BackupMade> Backups::make() {
  if (options_.database.empty()) return fail(ErrorCode::unavailable, "this clc makes no backups");
  const std::unique_lock guard(making_, std::try_to_lock);
  if (!guard) return fail(ErrorCode::conflict, "a backup is being made: wait for that one");
  const std::int64_t now = clock_.wall_ms();
  const auto target = store::backup_folder(options_.database) / store::backup_name(store::kRegular, now);
  auto made = store::copy_database(options_.database, target, stop_.get_token());
  if (!made) {
    if (!stop_.stop_requested()) {
      obs::error("backup.failed", {{"error", made.error().message}});
      obs::metrics().count("educloud_clc_backup_failures_total", "Backups that could not be made");
    }
    return made;
  }
  obs::info("backup.made",
            {{"file", target.string()}, {"bytes", made->bytes}, {"seconds", std::to_string(made->seconds)}});
  auto& metrics = obs::metrics();
  metrics.gauge("educloud_clc_backup_made_seconds", "When the last backup was made, unix time",
                static_cast<double>(now / 1000));
  metrics.gauge("educloud_clc_backup_bytes", "Size of the last backup", static_cast<double>(made->bytes));
  metrics.gauge("educloud_clc_backup_duration_seconds", "How long the last backup took", made->seconds);
  remove_outdated();
  return made;
}

std::vector<store::BackupFile> Backups::list() const {
  if (options_.database.empty()) return {};
  return store::list_backups(store::backup_folder(options_.database));
}

void Backups::remove_outdated() {
  for (const auto& one :
       store::outdated_backups(list(), options_.keep, options_.keep_days, kMigrationCopies)) {
    std::error_code error;
    std::filesystem::remove(one.file, error);
    if (error) {
      obs::warn("backup.not_removed", {{"file", one.file.string()}, {"error", error.message()}});
    } else {
      obs::info("backup.removed", {{"file", one.file.string()}});
    }
  }
}

std::int64_t Backups::wait_ms() const {
  const std::int64_t every = std::chrono::milliseconds(options_.every).count();
  for (auto all = list(); !all.empty(); all.pop_back()) {
    const std::int64_t age = clock_.wall_ms() - all.back().at;
    if (all.back().kind != "regular" || age < 0) continue;  // of the future: the clock was wrong
    return std::max<std::int64_t>(options_.first.count(), every - age);
  }
  return options_.first.count();
}

void Backups::loop() {
  std::int64_t wait = wait_ms();
  while (true) {
    {
      std::unique_lock guard(mutex_);
      const auto stopping = [this] { return stop_.stop_requested(); };
      if (changed_.wait_for(guard, std::chrono::milliseconds{wait}, stopping)) return;
    }
    // Conflict: somebody has asked for one just now.
    const auto made = make();
    const bool well = made || made.error().code == ErrorCode::conflict;
    wait = well ? std::chrono::milliseconds(options_.every).count() : kRetryMs;
  }
}

void Backups::start() {
  if (options_.database.empty() || options_.every.count() == 0 || thread_.joinable()) return;
  store::remove_unfinished(store::backup_folder(options_.database));
  thread_ = std::thread([this] { loop(); });
}

void Backups::stop() {
  {
    const std::scoped_lock guard(mutex_);
    stop_.request_stop();
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

}  // namespace educloud::clc
