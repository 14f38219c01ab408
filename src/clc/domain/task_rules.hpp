#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "clc/domain/types.hpp"
#include "common/base/result.hpp"
#include "common/msg/task_status.hpp"
#include "common/task/table.hpp"

/// What clc adds to the transition table: who may ask for what, which statuses count, how long a state
/// may last. All pure.
namespace educloud::clc {

inline constexpr std::int64_t kResendMs = 30'000;  ///< without news the same command is sent again ...
inline constexpr std::int64_t kLongestResendMs = 300'000;  ///< ... each time after twice as long, up to this
std::int64_t resend_after_ms(std::int64_t resends);

/// True for instance/... and snapshot/...: done to a VM that stays, which tells its state meanwhile.
bool is_operation(std::string_view op);

/// The row for a user's `event` (start, stop, submit, cancel, operate) on `task`.
/// Errors: conflict saying what the task is at and what can be done instead.
Result<task::Transition> user_transition(const Task& task, task::Event event);

/// What stands against submitting `task`, whose image has version `current` in use: that is not the version
/// the change was made from any more, and the user did not say to replace it. Builds make an image of their
/// own. Errors: conflict, naming both versions and the two choices.
Result<> check_source_in_use(const Task& task, int current);

/// Errors: conflict if `version` is a file from before disks were cut into chunks: no node can fetch it.
Result<> check_format(const Version& version);

/// What a received status is.
enum class Verdict {
  accept,
  duplicate,      ///< the last one again: the node is alive, nothing new
  stale,          ///< older than the last
  other_command,  ///< answers a command that is not the present one
  wrong_sender,   ///< not from where the task is carried out
  not_allowed,    ///< no such transition
  malformed,      ///< an event name nobody knows
};
std::string_view to_string(Verdict verdict);

struct Judgement {
  Verdict verdict = Verdict::malformed;
  task::Event event = task::Event::failed;
  std::optional<task::Transition> transition;  ///< if accepted
};

/// `sender` is the broker-verified user id: "cc-<cluster>" for a node's status, "walrus" for walrus'.
Judgement judge_status(const Task& task, const msg::TaskStatus& status, std::string_view sender);

/// True if `event` ends the command `op`: nothing more has to come, so it is not sent again.
bool answers(std::string_view op, task::Event event);

/// The task after an accepted status or a time-out; `transition` from judge_status or the table.
/// Does not carry out the action.
Task after_event(Task task, const task::Transition& transition, const msg::TaskStatus* status,
                 std::int64_t now_ms);

/// How long `task`, as it is now, may go without progress before Event::timeout. 0: for ever.
std::int64_t patience_ms(const Task& task);

/// What a time-out says to the user.
std::string timeout_text(const Task& task);

/// True if the version `task` starts from must stay: its overlay is, or may soon be, on it.
bool needs_source(const Task& task);

/// The one word a user sees for a VM with this open task.
std::string_view vm_state(const Task& task);

}  // namespace educloud::clc
