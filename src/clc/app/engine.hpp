#pragma once

#include <functional>
#include <mutex>
#include <string>

#include "clc/app/cloud.hpp"
#include "clc/app/event_hub.hpp"
#include "clc/app/heartbeats.hpp"
#include "clc/domain/commands.hpp"
#include "clc/domain/ledger.hpp"
#include "clc/domain/lesson.hpp"
#include "clc/domain/task_rules.hpp"
#include "clc/store/tasks.hpp"
#include "common/msg/inventory.hpp"

namespace educloud::clc {

namespace store {
class Store;
}

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

  /// A hidden image for the database disk of `image`, which is stored, and walrus' order to make it, which
  /// makes `image` a server's. Errors: as begin().
  Result<Task> begin_database(store::Sql& sql, Image image, const std::string& owner);
  /// The hidden image for the database disk of `image`, with no version yet; `image` does not name it yet.
  Image add_database_image(store::Sql& sql, const Image& image);
  /// The disk that belongs to `version` of a server's `image`. Errors: conflict (it has none yet).
  Result<Version> database_version(store::Sql& sql, const Image& image, const Version& version) const;
  /// The database disk of `task`'s instance, which is on no node any more, goes: a task/delete for a node of
  /// task.cluster other than task.node. Errors: unavailable (none is up).
  Result<Task> remove_disk(store::Sql& sql, Task task);
  /// True if the VM of `task` has a database disk.
  bool has_disk(store::Sql& sql, const Task& task) const;
  /// Lets `node` open, close, submit and remove the instance's database disk at its cc, as that epoch.
  std::string disk_grant(const std::string& insid, std::int64_t epoch, const std::string& node) const;
  /// Lets `node` join, keep and leave it, and no more: for some hours.
  std::string disk_move_grant(const std::string& insid, std::int64_t epoch, const std::string& node) const;

  /// start, stop, submit or cancel by a user. Errors: conflict, exhausted.
  Result<Task> user_event(store::Sql& sql, Task task, task::Event event);

  /// Does something to the task's VM. Errors: conflict (no VM, or it is busy), exhausted.
  Result<Task> operate(store::Sql& sql, Task task, Operation operation);

  /// Moves the task's VM, which runs, to `wanted`, or the node of its cluster that fits best. Errors:
  /// conflict (it cannot move, or is busy), not_found (no such node), exhausted, unavailable.
  Result<Task> move_vm(store::Sql& sql, Task task, const std::string& wanted);

  /// Cancels `task` and ends it without its node's answer, for a node that does not come back. If it does, it
  /// gets a task/delete. Errors: conflict (the node is alive, or was within kSilenceMs; walrus' tasks).
  Result<Task> force_end(store::Sql& sql, Task task);

  /// A status that judge_status accepted.
  Result<> accepted(store::Sql& sql, Task task, const Judgement& judgement, const msg::TaskStatus& status);

  /// The task's state has lasted too long.
  Result<> timed_out(store::Sql& sql, Task task);

  /// Sends the present command again, the same one.
  void resend(store::Sql& sql, Task task);

  // engine_reconcile.cpp: what a node's inventory makes necessary
  struct Farewell {
    std::string tid, node, cluster;
    std::int64_t epoch = 0, attempt = 0;
  };
  /// Tells a node to forget a task that is none of its own; nobody waits for the answer.
  void farewell(store::Sql& sql, const Farewell& to);
  /// `node`, in the task's cluster, is at a later command than we know of: `task` is there and goes on from
  /// that, as if we had just sent it. Errors: invalid_argument (no command for a node).
  Result<> adopt(store::Sql& sql, Task task, const msg::InventoryTask& told, const std::string& node);
  /// The VM of a running task is nowhere, and its node knows nothing of it.
  Result<> end_missing(store::Sql& sql, Task task);
  /// The VM of a stopped task runs.
  void stop_stray(store::Sql& sql, Task task);

  // engine_relocate.cpp: nodes that are lost
  /// Declares it lost: its lease epoch rises, so what it does under the old one is refused.
  Result<> lose_node(store::Sql& sql, const std::string& host);
  /// It has shown what it holds, and nothing of it is in the way.
  Result<> node_back(store::Sql& sql, const std::string& host);
  /// Brings `task`, whose node is lost, on: a desktop begins again elsewhere, one that was to stop or go is
  /// stopped or gone, anything else waits for its node and says so. `final_try`: a desktop that finds no node
  /// now is given up. True: nothing is left to do; false: no node could take it, which its errormsg says.
  Result<bool> relocate(store::Sql& sql, Task task, bool final_try);

  // engine_reboot.cpp: hosts that were restarted
  /// Looks at the heartbeats for nodes whose host was: once a second.
  Result<> tend_boots(store::Store& store);
  /// What runs on `host` as we know does not run any more if `booted_at` is newer than what it told before:
  /// what is to start by itself begins again there, servers first, anything else is stopped. Once for each
  /// reboot.
  Result<> node_booted(store::Sql& sql, const std::string& host, std::int64_t booted_at);

  /// Opens boot gates and stops what runs on drained nodes: once a second, and after a node's state changed.
  Result<> tend_nodes(store::Store& store);
  /// What runs on a drained node moves away, or is told when it is stopped, and stopped then; what boots
  /// there is stopped, what is not there yet begins again elsewhere (500 at a time).
  Result<> drain(store::Sql& sql);
  /// `host` is not drained any more: what was to be stopped there stays.
  void end_drain(store::Sql& sql, const std::string& host);
  std::int64_t drain_warning_ms() const { return options_.drain_warning_ms; }

  /// The decision that refused a node since the last call. For the same transaction that place() failed in:
  /// if that is rolled back, its ledger row is, too.
  std::optional<Decision> take_refused();

  /// How fast nodes fetched and VMs booted lately. Thread-safe.
  Pace pace() const;

  TaskView view(store::Sql& sql, const Task& task) const;
  std::int64_t now() const { return clock_.wall_ms(); }

 private:
  /// Prompt of one on a drained node that no other took: it is stopped.
  static constexpr std::string_view kStays = "it could not move away from its drained node";

  Result<> apply(store::Sql& sql, Task& task, const task::Transition& row, const msg::TaskStatus* status);
  Result<> act(store::Sql& sql, Task& task, task::Action action, const msg::TaskStatus* status);
  void follow_snapshot(store::Sql& sql, const Task& before, const Task& task, const task::Transition& row,
                       const msg::TaskStatus* status);
  Result<> stop_failed(store::Sql& sql, Task task, const msg::TaskStatus& status);
  Result<> run_undeliverable(store::Sql& sql, Task task, const msg::TaskStatus& status);
  Result<> after(store::Sql& sql, Task& task, task::Event event);
  Result<> place(store::Sql& sql, Task& task);
  Result<> run_or_wait(store::Sql& sql, Task& task);
  Result<> run_now(store::Sql& sql, Task& task);
  Result<> fail_here(Task& task, const std::string& why);
  Result<> open_gate(store::Sql& sql, const std::string& node);
  bool move_off(store::Sql& sql, const Task& task);
  Result<> may_move(store::Sql& sql, const Task& task) const;
  Result<NodeFacts> choose_target(store::Sql& sql, const Task& task, const std::string& wanted) const;
  Result<msg::Move> move_to(store::Sql& sql, const Task& task, const NodeFacts& target);
  void end_move(store::Sql& sql, Task& task, task::Event event);
  void turn_away(store::Sql& sql, const std::string& order);
  msg::Move adopt_move(store::Sql& sql, const Task& task, const msg::InventoryTask& told);
  void leave_ports(store::Sql& sql, const std::string& insid);
  Result<> moved(store::Sql& sql, Task task, const task::Transition& row, const msg::TaskStatus& status);
  bool leaves(store::Sql& sql, const Task& task) const;
  bool is_idle(const Task& task) const;
  bool warn(store::Sql& sql, Task& task);
  Result<> begin_elsewhere(store::Sql& sql, Task& task);
  void explain_stop(store::Sql& sql, Task& task) const;
  void show_queue(store::Sql& sql, TaskView& view) const;
  void show_warning(TaskView& view) const;
  void measure(const Task& task, task::Event event, const msg::TaskStatus& status);
  Result<> send(store::Sql& sql, Task& task, std::string_view op, const std::vector<int>& versions = {});
  Result<CommandParts> parts(store::Sql& sql, const Task& task, std::string_view op,
                             std::int64_t patience_ms);
  Result<> add_database(store::Sql& sql, const Task& task, std::string_view op, CommandParts& out);
  bool disk_goes(store::Sql& sql, const Task& task) const;
  void note_disk(store::Sql& sql, const Task& task, task::Event event);
  void remove_left_disk(store::Sql& sql, const Task& task);
  /// What a submit made of the database disk, by its own receipt; nothing if the VM has none.
  Result<std::optional<Version>> submitted_database(store::Sql& sql, const Task& task,
                                                    std::string_view receipt) const;
  void add_database_version(store::Sql& sql, const Version& version);
  Task upkeep_of(store::Sql& sql, TaskKind kind, const std::string& imgid, const std::string& owner);
  Result<> follow_upkeep(store::Sql& sql, const Task& task, const Image& image);
  Result<Access> take_access(store::Sql& sql, const Task& task);
  Result<> publish_version(store::Sql& sql, Task& task, const msg::TaskStatus* status);
  Result<> version_published(store::Sql& sql, const Image& image, int version, const std::string& owner);
  Result<> finish_upkeep(store::Sql& sql, Task& task);
  void release(store::Sql& sql, Task& task);
  void say_farewell(store::Sql& sql, Task was, std::int64_t patience_ms);
  void say_lost(store::Sql& sql, Task& task, const std::string& text);
  bool start_again(store::Sql& sql, std::int64_t row, const std::string& why);
  Result<> fenced(store::Sql& sql, Task task, const msg::TaskStatus& status);
  bool starts_by_itself(store::Sql& sql, const Task& task) const;
  Result<> stop_rebooted(store::Sql& sql, Task task);
  /// `task` is over on its lost node, as if that had said `event`; the node is told to forget it.
  Result<bool> leave_node(store::Sql& sql, Task task, task::Event event, const std::string& why = {});
  void queue_command(store::Sql& sql, const Task& task, const std::string& body, std::int64_t deadline_at);
  void changed(store::Sql& sql, const Task& task);

  Heartbeats& heartbeats_;
  EventHub& events_;
  const Clock& clock_;
  const CloudOptions& options_;
  std::function<void()> wake_ = [] {};
  std::optional<Operation> operation_;  ///< that operate() is sending: only the writer thread touches it
  bool adopts_ = false;  ///< the VM that send() sends for runs already: only the writer thread touches it
  std::optional<Decision> refused_;  ///< of the transaction in hand: only the writer thread touches it
  mutable std::mutex pace_mutex_;
  Pace pace_;
};

/// What walrus' signed statement says, if it is about this task's present command.
/// Errors: permission_denied, invalid_argument, conflict.
Result<Version> version_from_receipt(const Task& task, std::string_view receipt, std::string_view data_key);

}  // namespace educloud::clc
