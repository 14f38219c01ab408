#pragma once

#include <chrono>
#include <cstddef>
#include <map>
#include <optional>
#include <set>
#include <stop_token>
#include <string>
#include <string_view>

#include "common/msg/command.hpp"

namespace educloud::nc {

/// Lanes, so that stopping a VM never waits behind long copies, nor a user's copy behind those that nobody
/// waits for.
enum class Lane {
  copies,
  background,
  machines,
  returns,  ///< copies of database disks on their way back, which wait for a cc for as long as it takes
};
/// image/prepare and image/submit copy, in the background unless a user waits; the rest is about the VM.
Lane lane_of(const msg::Command& command);
/// instance/... and snapshot/...: done to a VM that stays what it is.
bool is_operation(std::string_view op);

/// Something to do for one task.
struct Job {
  msg::Command command;
  bool vm_ended = false;    ///< not a command: the VM ended by itself, `command` is the task's last one
  std::string detail = {};  ///< of vm_ended and vm_changed: how
  bool crashed = false;     ///< of vm_ended
  bool vm_changed = false;  ///< not a command: the VM was paused or goes on, and not by one
  bool gives_back = false;  ///< the same once more, now that its database disk is given back
  std::chrono::steady_clock::time_point not_before = {};
  bool is_command() const { return !vm_ended && !vm_changed; }
};

/// Which job may run now: at most one per task; a newer command of a task interrupts the running one and
/// replaces the waiting one (its statuses would be refused anyway). Pure, one thread at a time.
class TaskQueue {
 public:
  explicit TaskQueue(std::size_t max_tasks = 2000) : max_tasks_(max_tasks) {}

  /// Errors: exhausted, when `max_tasks` tasks wait or run.
  Result<> push(Job job);

  struct Started {
    Job job;
    std::stop_token stop;  ///< requested when a newer command comes
  };
  /// The next job of `lane` whose task is free and whose time has come; it must be ended by `finish`.
  std::optional<Started> next(Lane lane,
                              std::chrono::steady_clock::time_point now = std::chrono::steady_clock::now());
  /// `next`: what is left of it to do, unless something newer waits.
  void finish(const std::string& tid, std::optional<Job> next = {});
  /// Asks every running job to stop and drops the waiting ones (they are redone after the next start).
  void close();

  bool is_busy(const std::string& tid) const { return slots_.contains(tid); }
  std::size_t size() const { return slots_.size(); }

 private:
  struct Slot {
    std::optional<std::stop_source> running;
    bool runs_command = false;
    std::optional<Job> waiting;
    std::uint64_t order = 0;
  };
  const std::size_t max_tasks_;
  std::map<std::string, Slot> slots_;
  std::map<std::uint64_t, std::string> ready_;  ///< order -> tid: waiting and nothing runs
  std::uint64_t next_order_ = 1;
  bool closed_ = false;
};

}  // namespace educloud::nc
