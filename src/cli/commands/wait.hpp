#pragma once

#include <string>

#include "cli/commands/context.hpp"
#include "cli/core/progress.hpp"
#include "common/base/clock.hpp"

namespace educloud::cli {

/// --wait and --timeout of a command that starts a task.
struct WaitOptions {
  bool wait = false;
  int timeout_s = 3600;
};
void add_wait_options(CLI::App& command, WaitOptions& options);

/// Of --force, for `task cancel` and `vm delete`.
inline constexpr const char* kForceHelp =
    "Administrators: end it at once, if its node was silent for 10 minutes or is not registered any more";

/// --on-conflict of a submit, and the body it makes.
void add_conflict_option(CLI::App& command, std::string& on_conflict);
nlohmann::json submit_body(const std::string& on_conflict);

/// What a command waits for.
enum class Goal {
  running,  ///< the VM runs
  stopped,  ///< the VM does not run any more
  ended,    ///< the task is over, and reached what it was for
  gone,     ///< nothing is left of the task; not found counts
  settled,  ///< the operation on its VM is answered
};

/// Where a task stands with regard to a goal.
enum class Standing { under_way, reached, failed };
/// `task`: as the API shows it. Pure.
Standing judge(const nlohmann::json& task, Goal goal);

/// "place 3 of 12 in the boot queue of nc1: ..."; empty if it does not wait there. Pure.
std::string queue_text(const nlohmann::json& task);

/// Its progress for the printer. Pure.
Step step_of(const nlohmann::json& task);

/// Asks for the task twice a second, showing its progress, until the goal is reached, it failed, or the time
/// limit passed. An API that does not answer for a while is asked again. Returns the task as last seen.
/// Errors: corrupt (the task failed; the message is its own), timeout, unauthenticated, not_found.
Result<nlohmann::json> wait_for_task(Context& context, Session& session, const std::string& tid, Goal goal,
                                     int timeout_s);

/// Waits until the operation `op` that was asked of the VM of task `tid` is answered. Errors: as
/// wait_for_task; conflict if the VM was asked for something else meanwhile.
Result<nlohmann::json> wait_for_operation(Context& context, Session& session, const std::string& tid,
                                          const std::string& op, int timeout_s);

/// "tid TID  phase/state  node" and the rest of a task, one "key  value" per line.
std::string describe_task(const nlohmann::json& task);

/// Shows what a command started; with --wait follows it to `goal` first.
Result<> report_task(Context& context, Session& session, nlohmann::json task, Goal goal,
                     const WaitOptions& options);

}  // namespace educloud::cli
