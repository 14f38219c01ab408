#pragma once

#include <string>

#include "clc/app/backups.hpp"
#include "clc/app/views.hpp"
#include "clc/domain/dead_letter.hpp"
#include "clc/store/store.hpp"

namespace educloud::clc {

class Engine;

/// A dead letter that was tried again.
struct RetriedView {
  DeadLetter letter;
  /// sent_again: the command is on its way. Else what clc made of the status: "accept", or why it no longer
  /// counts ("stale", "duplicate", "other_command", "unknown_task" ...).
  std::string outcome;
};

struct DroppedView {
  int dropped = 0;
};

struct BackupView {
  std::string file;  ///< on clc's host
  std::string kind;  ///< regular | before_migration
  std::int64_t at = 0, bytes = 0;
  double seconds = 0;  ///< it took; 0: not known any more
};

/// What an administrator does for the safety of the cloud itself: messages that died, and backups. Each call
/// checks that he is one. Thread-safe. Errors besides those named: permission_denied, unavailable and timeout
/// when the database cannot commit in time.
class Safety {
 public:
  Safety(store::Store& store, Engine& engine, const Clock& clock, BackupOptions options)
      : store_(store), engine_(engine), clock_(clock), backups_(std::move(options), clock) {}

  /// Newest first, without bodies.
  Result<Page<DeadLetter>> dead_letters(const Principal& who, const PageRequest& page);
  /// Errors: not_found.
  Result<DeadLetter> dead_letter(const Principal& who, std::int64_t id);
  /// A command is sent again if its task still waits for it; a status is judged again, as if it came now.
  /// Errors: not_found, conflict saying why it cannot be.
  Result<RetriedView> retry_dead_letter(const Principal& who, std::int64_t id);
  /// Errors: not_found.
  Result<DroppedView> drop_dead_letter(const Principal& who, std::int64_t id);
  Result<DroppedView> drop_dead_letters(const Principal& who);

  /// Makes a backup now. Errors: conflict (one is being made), exhausted (disk).
  Result<BackupView> back_up(const Principal& who);
  /// Newest first.
  Result<Page<BackupView>> backups(const Principal& who);

  /// Unix milliseconds, by the names of the files; 0: there is none.
  std::int64_t last_backup_at() const;

  /// The timer of the regular backups.
  void start() { backups_.start(); }
  void stop() { backups_.stop(); }

 private:
  Result<std::string> send_again(store::Sql& sql, const DeadLetter& letter);
  void audit(store::Sql& sql, const Principal& who, std::string_view action, std::string_view object,
             std::string_view detail = {});

  store::Store& store_;
  Engine& engine_;
  const Clock& clock_;
  Backups backups_;
};

/// Without the body; in a view of its own with `with_body`, made readable.
nlohmann::json to_json(const DeadLetter& letter, bool with_body = false);
nlohmann::json to_json(const RetriedView& retried);
nlohmann::json to_json(const DroppedView& dropped);
nlohmann::json to_json(const BackupView& backup);

}  // namespace educloud::clc
