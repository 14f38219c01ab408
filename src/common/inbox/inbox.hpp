#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/clock.hpp"
#include "common/base/result.hpp"
#include "common/bus/bus.hpp"
#include "common/msg/command.hpp"
#include "common/msg/task_status.hpp"
#include "common/task/state.hpp"

namespace educloud::inbox {

struct Options {
  std::filesystem::path file;  ///< SQLite, made 0600: commands carry display passwords and grants
  std::string exchange;        ///< statuses go there: "cc_status" from a node, "clc_status" from walrus
  std::string routing_key;     ///< "taskstatus.nc-<host>", "taskstatus.walrus"
  std::string nid;             ///< host name of the node; empty for walrus
  std::int64_t booted_at = 0;  ///< goes with each status, so that it is known to be of this boot of the host
  std::chrono::milliseconds progress_interval{1000};  ///< at most one progress per task in this time
  std::chrono::milliseconds resend_interval{5000};    ///< between attempts to send an unconfirmed status
  std::size_t kept_commands = 10'000;                 ///< cmdids remembered to recognise duplicates ...
  std::chrono::hours kept_for{7 * 24};                ///< ... and for how long
};

/// What `accept` made of a command. In every case the delivery may be acked.
enum class Accepted {
  fresh,      ///< on disk; do it, then `report` until a final one
  expired,    ///< on disk, but it came after its deadline: do not begin it, report the failure
              ///< (`expired_error`)
  duplicate,  ///< we have it and it is the task's present one; its status was sent again
  stale,      ///< older than what the task is at: nothing was or may be done
};

/// One thing to tell about a task. `at` is where the task is after it. The rate in the status is reckoned
/// from `bytes_done` of the reports of one event, so give them as often as there is something to say.
struct Report {
  std::string tid;
  std::string cmdid;
  task::Event event = task::Event::failed;
  task::TaskState at = {};
  bool final =
      false;  ///< nothing more comes for this command (a VM that ends by itself later is reported anyway)
  int progress = 0;  ///< percent of the present state
  std::int64_t bytes_done = 0;
  std::int64_t bytes_total = 0;
  std::string prompt = {};          ///< one line for a person
  std::optional<Error> error = {};  ///< set: failed = 1, errormsg = its message
  std::string warning = {};         ///< without an error: what its user has to know all the same, as errormsg
  std::string receipt = {};
  std::string database_receipt = {};
  std::string snapshot = {};  ///< of snapshot/...: the one it is about
};

/// A task as the inbox knows it: its last command and the last status told.
struct Entry {
  msg::Command command;
  std::optional<msg::TaskStatus> status;  ///< none: nothing was reported for `command` yet
  bool finished = false;                  ///< `command` got its final status
};

/// Commands taken over for good, and the last status of each task told at least once. Everything is in the
/// file before a call returns, so a daemon killed at any instant goes on from `unfinished`. A command is also
/// synced to the disk; a status is not: after a power cut its command is done again and tells it again, under
/// a newer number (ADR 8). All calls are thread-safe; none waits for the broker.
class Inbox {
 public:
  /// `bus` and `clock` must outlive it. Errors: corrupt or internal, naming the file.
  static Result<std::unique_ptr<Inbox>> open(Options options, bus::Bus& bus, const Clock& clock);
  ~Inbox();
  Inbox(const Inbox&) = delete;
  Inbox& operator=(const Inbox&) = delete;

  /// Call before the delivery is acked. Errors (then requeue): internal or exhausted, the disk did not take
  /// it.
  Result<Accepted> accept(const msg::Command& command);

  /// Numbers, stores and publishes a status. Progress (same event, not final) is held back to one per
  /// `progress_interval`; the latest one held back is sent by `tick`.
  /// Errors: conflict if a newer command has taken the task over (the reporter should stop), not_found.
  Result<> report(const Report& report);

  /// Commands without a final status, oldest first: what to do again after a restart.
  std::vector<Entry> unfinished() const;
  /// Every task still remembered.
  std::vector<Entry> tasks() const;
  std::optional<Entry> find(const std::string& tid) const;

  /// For Bus::start's `on_ready`: sends every status again that the broker has not confirmed.
  void resend();
  /// Progress held back, unconfirmed statuses past `resend_interval`, retention. Call it some times a second,
  /// or `start` a thread that does.
  void tick();
  void start();
  /// Ends the thread. Idempotent.
  void stop();

 private:
  struct Impl;
  explicit Inbox(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;  ///< shared with outcome callbacks that may come after our end
};

/// What to report for Accepted::expired; names both times, since the usual cause is a wrong clock.
Error expired_error(const msg::Command& command, std::int64_t now_ms);

}  // namespace educloud::inbox
