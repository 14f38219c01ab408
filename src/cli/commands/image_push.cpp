#include <CLI/CLI.hpp>

#include "cli/commands/context.hpp"
#include "cli/commands/wait.hpp"
#include "cli/core/text.hpp"

namespace educloud::cli {
namespace {

struct PushArguments {
  std::string imgid, cluster;
  std::vector<std::string> nodes;
  int version = 0;
  WaitOptions wait;
};

std::string table_of(const nlohmann::json& items) {
  std::vector<std::vector<std::string>> rows = {{"NODE", "RESULT", "TASK", "REASON"}};
  for (const auto& one : items)
    rows.push_back({cell(one, "node"), cell(one, "result"), cell(one, "tid"), cell(one, "reason")});
  return render_table(rows);
}

/// Follows the tasks one after the other: they run at the same time. The first failure is the result, once
/// the others have ended too.
Result<> follow(Context& context, Session& session, nlohmann::json& items, const WaitOptions& wait) {
  const SystemClock clock;
  const std::int64_t deadline_ms = clock.boot_ms() + std::int64_t{wait.timeout_s} * 1000;
  Result<> outcome;
  for (auto& one : items) {
    const std::string tid = cell(one, "tid");
    if (tid == "-") continue;
    const auto left_s = std::max<std::int64_t>(1, (deadline_ms - clock.boot_ms()) / 1000);
    auto task = wait_for_task(context, session, tid, Goal::ended, static_cast<int>(left_s));
    one["result"] = task ? "present" : task.error().code == ErrorCode::timeout ? "under_way" : "failed";
    one["reason"] = task ? std::string("has it now") : task.error().message;
    if (!task && outcome) outcome = fail(task.error());
  }
  return outcome;
}

Result<> push_image(Context& context, Session& session, const PushArguments& a) {
  if (a.cluster.empty() == a.nodes.empty())
    return fail(ErrorCode::invalid_argument, "give --cluster or --node", "cluster");
  auto body = nlohmann::json::object();
  if (a.version > 0) body["version"] = a.version;
  if (!a.cluster.empty()) body["cluster"] = a.cluster;
  if (!a.nodes.empty()) body["nodes"] = a.nodes;
  auto answer = session.post("/images/" + http::url_encode(a.imgid) + "/push", body);
  if (!answer) return fail(answer.error());
  auto& items = (*answer)["items"];
  if (!items.is_array()) return fail(ErrorCode::internal, session.url() + ": the answer has no items");
  Result<> outcome;
  if (a.wait.wait) outcome = follow(context, session, items, a.wait);
  context.console.result(*answer, table_of(items));
  if (!outcome) {
    // With --json there is one document, and it has been printed.
    if (!context.console.json) return outcome;
    context.exit_code = exit_code(outcome.error().code);
    return {};
  }
  const bool any_serves = std::any_of(items.begin(), items.end(), [](const auto& one) {
    const std::string result = cell(one, "result");
    return result == "started" || result == "under_way" || result == "present";
  });
  if (!any_serves) context.exit_code = ExitCode::unavailable;
  return {};
}

}  // namespace

void add_image_push_command(CLI::App& image, Context& context) {
  auto* command = image.add_subcommand("push", "Bring a version to nodes before anybody waits for it");
  auto arguments = std::make_shared<PushArguments>();
  auto& a = *arguments;
  command->add_option("IMAGE", a.imgid, "Image id")->required();
  command->add_option("--version", a.version, "This version, not the one in use")->check(CLI::PositiveNumber);
  auto* cluster = command->add_option("--cluster", a.cluster, "To all nodes of this cluster");
  command->add_option("--node", a.nodes, "To this node (several)")->take_all()->excludes(cluster);
  add_wait_options(*command, a.wait);
  on_command(*command, context,
             [&context, arguments](Session& session) { return push_image(context, session, *arguments); });
}

}  // namespace educloud::cli
