#include <CLI/CLI.hpp>

#include "cli/commands/context.hpp"
#include "cli/commands/plan.hpp"
#include "cli/commands/wait.hpp"
#include "cli/core/text.hpp"
#include "common/base/bytes.hpp"

namespace educloud::cli {
namespace {

std::string path_of(const std::string& tid) {
  return "/tasks/" + http::url_encode(tid);
}

/// By the bytes where they are told.
std::string percent_cell(const nlohmann::json& task) {
  const Step step = step_of(task);
  if (step.bytes_total == 0) return cell(task, "progress");
  return std::to_string(std::min(step.bytes_done, step.bytes_total) * 100 / step.bytes_total);
}

std::string rate_cell(const nlohmann::json& task) {
  const auto rate = step_of(task).bytes_per_s;
  return rate > 0 ? to_string(Bytes{static_cast<std::uint64_t>(rate)}) + "/s" : "-";
}

Result<> list_tasks(Context& context, Session& session, bool all) {
  auto tasks = session.list(all ? "/tasks" : "/tasks?open=true");
  if (!tasks) return fail(tasks.error());
  std::vector<std::vector<std::string>> rows = {
      {"TASK", "KIND", "STATE", "%", "RATE", "NODE", "FAILED", "UPDATED", "MESSAGE"}};
  for (const auto& one : *tasks) {
    const auto updated = one.find("updated_at");
    const std::string error = cell(one, "errormsg");
    rows.push_back({cell(one, "tid"), cell(one, "kind"), cell(one, "phase") + "/" + cell(one, "state"),
                    percent_cell(one), rate_cell(one), cell(one, "node"), cell(one, "failed"),
                    updated != one.end() && updated->is_number_integer()
                        ? format_time(updated->get<std::int64_t>())
                        : "-",
                    error != "-"              ? error
                    : queue_text(one).empty() ? cell(one, "prompt")
                                              : queue_text(one)});
  }
  context.console.result({{"items", *tasks}}, render_table(rows));
  return {};
}

/// Until the task is over; how it ended is the exit code.
Result<> watch_task(Context& context, Session& session, const std::string& tid, int timeout_s) {
  auto task = wait_for_task(context, session, tid, Goal::ended, timeout_s);
  if (!task) return fail(task.error());
  context.console.result(*task, describe_task(*task));
  return {};
}

void add_change(CLI::App& task, Context& context, const char* verb, const char* about, Goal goal) {
  auto* command = task.add_subcommand(verb, about);
  auto tid = std::make_shared<std::string>();
  auto wait = std::make_shared<WaitOptions>();
  auto force = std::make_shared<bool>(false);
  auto on_conflict = std::make_shared<std::string>();
  command->add_option("TASK", *tid, "Task id")->required();
  add_wait_options(*command, *wait);
  const std::string name = verb;
  if (name == "cancel") command->add_flag("--force", *force, kForceHelp);
  if (name == "submit") add_conflict_option(*command, *on_conflict);
  on_command(*command, context, [=, &context](Session& session) -> Result<> {
    auto changed = name == "cancel" ? session.remove(path_of(*tid) + (*force ? "?force=true" : ""))
                                    : session.post(path_of(*tid) + "/" + name, submit_body(*on_conflict));
    if (!changed) return fail(changed.error());
    return report_task(context, session, std::move(*changed), goal, *wait);
  });
}

}  // namespace

void add_task_commands(CLI::App& app, Context& context) {
  auto* task = app.add_subcommand("task", "What the cloud is doing");
  task->require_subcommand(1);
  auto* list = task->add_subcommand("list", "Open tasks");
  auto all = std::make_shared<bool>(false);
  list->add_flag("--all", *all, "Ended ones too");
  on_command(*list, context,
             [&context, all](Session& session) { return list_tasks(context, session, *all); });

  auto tid = std::make_shared<std::string>();
  auto* show = task->add_subcommand("show", "One task");
  show->add_option("TASK", *tid, "Task id")->required();
  on_command(*show, context, [&context, tid](Session& session) -> Result<> {
    auto one = session.get(path_of(*tid));
    if (!one) return fail(one.error());
    context.console.result(*one, describe_task(*one));
    return {};
  });

  auto* why = task->add_subcommand("why", "Why it runs where it does, or no node could take it");
  why->add_option("TASK", *tid, "Task id, or the VM's")->required();
  on_command(*why, context, [&context, tid](Session& session) -> Result<> {
    auto one = session.get(path_of(*tid) + "/why");
    if (!one) return fail(one.error());
    context.console.result(*one, describe_why(*one));
    return {};
  });

  auto* watch = task->add_subcommand("watch", "Follow one task to its end");
  auto timeout_s = std::make_shared<int>(24 * 3600);
  watch->add_option("TASK", *tid, "Task id")->required();
  watch->add_option("--timeout", *timeout_s, "Seconds at most")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  on_command(*watch, context,
             [=, &context](Session& session) { return watch_task(context, session, *tid, *timeout_s); });

  add_change(*task, context, "submit", "Make what was changed a new version", Goal::ended);
  add_change(*task, context, "start", "Start its VM, or what failed, again", Goal::running);
  add_change(*task, context, "stop", "Stop its VM", Goal::stopped);
  add_change(*task, context, "cancel", "Give it up and remove what it left", Goal::gone);
}

}  // namespace educloud::cli
