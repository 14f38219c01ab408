#pragma once

#include <compare>
#include <string_view>

#include "common/base/result.hpp"

namespace educloud::task {

/// Enumerators are spelled as on the wire (CONTRACT.md "Phases and states").
enum class Phase { preparing, editing, submitting };

enum class State {
  init,
  downloading,
  cloning,
  done,
  stopped,
  booting,
  running,
  paused,
  migrating,
  uploading,
  deleting,  ///< ours: what the node holds of the task is being removed
  gone,      ///< ours, terminal, never on the wire: nothing is left of it
};

struct TaskState {
  Phase phase = Phase::preparing;
  State state = State::init;
  auto operator<=>(const TaskState&) const = default;
};

/// What may happen to a task.
enum class Event {
  // a user, or clc on a user's behalf
  start,
  stop,
  submit,
  cancel,
  operate,  ///< pause, resume, snapshot ...: an operation on the VM, which tells its state afterwards
  // the node (walrus for an import) tells
  downloading,
  cloning,
  prepared,
  booting,
  running,
  paused,
  migrating,  ///< it runs on, and its memory is on the way to another node
  stopped,
  refused,  ///< the operation was not done: the VM is as it was
  uploading,
  submitted,
  deleted,
  failed,
  // clc's own reading of `prepared`: the version is on the node, and the task was for no more than that
  fetched,
  // clc's own clock
  timeout,
  lost,  ///< the node's lease ran out: it begins again on another one
};

/// What clc must do in the same transaction as the transition.
enum class Action {
  none,
  send_prepare,
  send_run,
  send_stop,
  send_operation,
  send_submit,
  send_delete,
  publish_version,  ///< record the new version, then send_delete
  release,          ///< give back ports and addresses, close the task
};

std::string_view to_string(Phase phase);
std::string_view to_string(State state);
std::string_view to_string(Event event);
std::string_view to_string(Action action);
Result<Phase> parse_phase(std::string_view text);
Result<State> parse_state(std::string_view text);
Result<Event> parse_event(std::string_view text);

}  // namespace educloud::task
