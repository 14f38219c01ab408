#pragma once

#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <memory>
#include <mutex>
#include <stop_token>
#include <thread>

#include "clc/store/backup.hpp"
#include "clc/store/backup_names.hpp"
#include "common/base/clock.hpp"

namespace educloud::clc {

struct BackupOptions {
  std::filesystem::path database;           ///< empty: no backups at all
  std::chrono::minutes every{15};           ///< 0: only when asked for
  std::size_t keep = 16;                    ///< the newest that stay
  std::size_t keep_days = 7;                ///< days whose last one stays
  std::chrono::milliseconds first{30'000};  ///< after a start, at the earliest: the cloud comes first
};

/// Copies the database every now and then, in a thread of its own, into `backups` beside it, and removes the
/// copies that are old enough.
class Backups {
 public:
  Backups(BackupOptions options, const Clock& clock);
  ~Backups();
  Backups(const Backups&) = delete;
  Backups& operator=(const Backups&) = delete;

  /// Makes one now, on this thread. Errors: those of store::copy_database; conflict if one is being made.
  Result<store::BackupMade> make();
  /// Oldest first.
  std::vector<store::BackupFile> list() const;

  void start();
  /// One under way is given up. Idempotent.
  void stop();

 private:
  /// Until the next one is due. By the clock that does not jump, but for what an earlier process made.
  std::int64_t wait_ms() const;
  void loop();
  void remove_outdated();

  const BackupOptions options_;
  const Clock& clock_;
  std::mutex making_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::stop_source stop_;
  std::thread thread_;
};

}  // namespace educloud::clc
