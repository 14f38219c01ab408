#pragma once

#include <functional>
#include <string>

#include "clc/app/cloud.hpp"
#include "clc/app/event_hub.hpp"
#include "clc/app/heartbeats.hpp"
#include "clc/domain/commands.hpp"
#include "clc/domain/task_rules.hpp"
#include "clc/store/tasks.hpp"

namespace educloud::clc {

/// Carries a task from one state to the next: the transition, what it makes necessary (commands into the
/// outbox, versions, ports) and the event for watchers, all inside the caller's write transaction.
class Engine {
 public:
  static constexpr std::int64_t kSilenceMs =
      10 * 60'000;  ///< of a node, until its tasks may be forced to end

  Engine(Heartbeats& heartbeats, EventHub& events, const Clock& clock, const CloudOptions& options)
      : heartbeats_(heartbeats), events_(events), clock_(clock), options_(options) {}

  /// Called on the writer thread after each commit that put something into the outbox.
  void on_outbox(std::function<void()> wake);

  /// Stores a new task and sends its first command. `version`: for a VM, what it starts from; for upkeep,
  /// what it is about. Errors: exhausted (no node, no port), not_found.
  Result<Task> begin(store::Sql& sql, Task task, const std::vector<int>& versions = {});

  /// start, stop, submit or cancel by a user. Errors: conflict, exhausted.
  Result<Task> user_event(store::Sql& sql, Task task, task::Event event);

  /// Cancels `task` and ends it without its node's answer, for a node that does not come back. If it does, it
  /// gets a task/delete. Errors: conflict (the node is alive, or was within kSilenceMs; walrus' tasks).
  Result<Task> force_end(store::Sql& sql, Task task);

  /// A status that judge_status accepted.
  Result<> accepted(store::Sql& sql, Task task, const Judgement& judgement, const msg::TaskStatus& status);

  /// The task's state has lasted too long.
  Result<> timed_out(store::Sql& sql, Task task);

  /// Sends the present command again, the same one.
  void resend(store::Sql& sql, Task task);

  TaskView view(store::Sql& sql, const Task& task) const;
  std::int64_t now() const { return clock_.wall_ms(); }

 private:
  Result<> apply(store::Sql& sql, Task& task, const task::Transition& row, const msg::TaskStatus* status);
  Result<> act(store::Sql& sql, Task& task, task::Action action, const msg::TaskStatus* status);
  Result<> after(store::Sql& sql, Task& task, task::Event event);
  Result<> place(store::Sql& sql, Task& task);
  Result<> send(store::Sql& sql, Task& task, std::string_view op, const std::vector<int>& versions = {});
  Result<CommandParts> parts(store::Sql& sql, const Task& task, std::string_view op,
                             std::int64_t patience_ms);
  Result<Access> take_access(store::Sql& sql, const Task& task);
  Result<> publish_version(store::Sql& sql, Task& task, const msg::TaskStatus* status);
  Result<> finish_upkeep(store::Sql& sql, Task& task);
  void release(store::Sql& sql, Task& task);
  void say_farewell(store::Sql& sql, Task was, std::int64_t patience_ms);
  void queue_command(store::Sql& sql, const Task& task, const std::string& body, std::int64_t deadline_at);
  void changed(store::Sql& sql, const Task& task);

  Heartbeats& heartbeats_;
  EventHub& events_;
  const Clock& clock_;
  const CloudOptions& options_;
  std::function<void()> wake_ = [] {};
};

/// What walrus' signed statement says, if it is about this task's present command.
/// Errors: permission_denied, invalid_argument, conflict.
Result<Version> version_from_receipt(const Task& task, std::string_view receipt, std::string_view data_key);

}  // namespace educloud::clc
