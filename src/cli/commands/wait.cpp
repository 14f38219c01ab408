#include "cli/commands/wait.hpp"

#include <CLI/CLI.hpp>

#include "cli/core/text.hpp"

namespace educloud::cli {
namespace {

constexpr std::chrono::milliseconds kPollInterval{500};
constexpr int kMostTimeoutS = 7 * 24 * 3600;

std::string text_of(const nlohmann::json& object, const char* key) {
  const auto at = object.find(key);
  return at != object.end() && at->is_string() ? at->get<std::string>() : std::string();
}

std::int64_t number_of(const nlohmann::json& object, const char* key) {
  const auto at = object.find(key);
  return at != object.end() && at->is_number_integer() ? at->get<std::int64_t>() : 0;
}

/// true, or a number that is not 0.
bool flag_of(const nlohmann::json& object, const char* key) {
  const auto at = object.find(key);
  if (at == object.end()) return false;
  return at->is_boolean() ? at->get<bool>() : at->is_number_integer() && at->get<std::int64_t>() != 0;
}

/// Worth asking again within the time limit: the API restarts, or is overloaded.
bool is_passing(const Error& error) {
  return error.code == ErrorCode::unavailable || error.code == ErrorCode::timeout;
}

}  // namespace

void add_wait_options(CLI::App& command, WaitOptions& options) {
  command.add_flag("--wait", options.wait, "Wait for the end and show the progress");
  command.add_option("--timeout", options.timeout_s, "Seconds to wait at most")
      ->check(CLI::Range(1, kMostTimeoutS))
      ->capture_default_str();
}

void add_conflict_option(CLI::App& command, std::string& on_conflict) {
  command
      .add_option("--on-conflict", on_conflict,
                  "If another version came into use meanwhile: fail, and nothing is lost, or replace: this "
                  "becomes the next version, the other stays listed")
      ->check(CLI::IsMember({"fail", "replace"}));
}

nlohmann::json submit_body(const std::string& on_conflict) {
  auto body = nlohmann::json::object();
  if (!on_conflict.empty()) body["on_conflict"] = on_conflict;
  return body;
}

Standing judge(const nlohmann::json& task, Goal goal) {
  const std::string phase = text_of(task, "phase");
  const std::string state = text_of(task, "state");
  const bool editing = phase == "editing";
  if (goal == Goal::settled) {
    if (flag_of(task, "busy")) return Standing::under_way;
    // What an operation could not do leaves the VM well, so only the message tells.
    return text_of(task, "errormsg").empty() && editing && state != "deleting" ? Standing::reached
                                                                               : Standing::failed;
  }
  // Tidying up is asked for again until it is done, and a VM that failed to stop in order has stopped all the
  // same.
  const bool goes_on = state == "deleting" || state == "gone" || (phase == "submitting" && state == "done") ||
                       (goal == Goal::stopped && editing && state == "stopped");
  if (flag_of(task, "failed") && !goes_on) return Standing::failed;
  switch (goal) {
    case Goal::running:
      if (editing && state == "running") return Standing::reached;
      // A VM that ended at once, and a task somebody cancelled, will not run any more by themselves.
      return state == "gone" || state == "deleting" || (editing && state == "stopped") ? Standing::failed
                                                                                       : Standing::under_way;
    case Goal::stopped:
      return state == "gone" || (editing && state == "stopped") ? Standing::reached : Standing::under_way;
    case Goal::ended:
      if (state != "gone") return Standing::under_way;
      return flag_of(task, "done") ? Standing::reached : Standing::failed;
    case Goal::gone: return state == "gone" ? Standing::reached : Standing::under_way;
    case Goal::settled: break;  // above
  }
  return Standing::failed;
}

std::string queue_text(const nlohmann::json& task) {
  return number_of(task, "queue_place") > 0 ? text_of(task, "queue_reason") : std::string();
}

Step step_of(const nlohmann::json& task) {
  Step step;
  step.label = text_of(task, "phase") + "/" + text_of(task, "state");
  const std::string queue = queue_text(task);
  const std::string prompt = queue.empty() ? text_of(task, "prompt") : queue;
  if (!prompt.empty()) step.label += " " + prompt;
  step.bytes_done = static_cast<std::uint64_t>(std::max<std::int64_t>(0, number_of(task, "bytes_done")));
  step.bytes_total = static_cast<std::uint64_t>(std::max<std::int64_t>(0, number_of(task, "bytes_total")));
  step.bytes_per_s = number_of(task, "bytes_per_s");
  if (step.bytes_total == 0)
    step.percent = static_cast<int>(std::clamp<std::int64_t>(number_of(task, "progress"), 0, 100));
  return step;
}

Result<nlohmann::json> wait_for_task(Context& context, Session& session, const std::string& tid, Goal goal,
                                     int timeout_s) {
  const SystemClock clock;
  ProgressPrinter progress(!context.console.quiet, context.console.stderr_is_terminal(), clock);
  const std::int64_t deadline_ms = clock.boot_ms() + std::int64_t{timeout_s} * 1000;
  const std::string path = "/tasks/" + http::url_encode(tid);
  std::string last_error;
  while (true) {
    auto task = session.get(path);
    if (!task && goal == Goal::gone && task.error().code == ErrorCode::not_found)
      return nlohmann::json{{"tid", tid}, {"state", "gone"}};
    if (!task && !is_passing(task.error())) return task;
    if (task) {
      progress.show(step_of(*task));
      const Standing standing = judge(*task, goal);
      if (standing == Standing::reached) return task;
      if (standing == Standing::failed) {
        const std::string why = text_of(*task, "errormsg");
        return fail(ErrorCode::corrupt,
                    "task " + tid + " failed: " + (why.empty() ? "it was stopped or cancelled" : why));
      }
    } else {
      last_error = " (" + task.error().message + ")";
    }
    if (clock.boot_ms() >= deadline_ms) {
      return fail(ErrorCode::timeout, "task " + tid + " is not there after " + std::to_string(timeout_s) +
                                          " s; it goes on: educloud task watch " + tid + last_error);
    }
    std::this_thread::sleep_for(kPollInterval);
  }
}

Result<nlohmann::json> wait_for_operation(Context& context, Session& session, const std::string& tid,
                                          const std::string& op, int timeout_s) {
  auto last = wait_for_task(context, session, tid, Goal::settled, timeout_s);
  if (!last) return last;
  const std::string now = text_of(*last, "op");
  if (now != op) return fail(ErrorCode::conflict, "task " + tid + " was asked for " + now + " meanwhile");
  return last;
}

std::string describe_task(const nlohmann::json& task) {
  std::vector<std::vector<std::string>> rows;
  rows.push_back({"tid", cell(task, "tid")});
  rows.push_back({"state", cell(task, "phase") + "/" + cell(task, "state")});
  for (const char* key : {"kind", "insid", "node", "queue_reason", "prompt", "errormsg"}) {
    const std::string value = cell(task, key);
    if (value != "-") rows.push_back({key, value});
  }
  return render_table(rows);
}

Result<> report_task(Context& context, Session& session, nlohmann::json task, Goal goal,
                     const WaitOptions& options) {
  const std::string tid = text_of(task, "tid");
  if (options.wait && !tid.empty()) {
    auto last = wait_for_task(context, session, tid, goal, options.timeout_s);
    if (!last) return fail(last.error());
    task = std::move(*last);
  }
  context.console.result(task, describe_task(task));
  return {};
}

}  // namespace educloud::cli
