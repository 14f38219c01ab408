#include "cli/commands/plan.hpp"

#include <CLI/CLI.hpp>
#include <ctime>

#include "cli/commands/context.hpp"
#include "cli/commands/wait.hpp"
#include "cli/core/text.hpp"

namespace educloud::cli {
namespace {

struct PlanArguments {
  std::string image, vmtype, cluster, node, at;
  int count = 1, version = 0, cpus = 0;
  std::int64_t memory_mib = 0;
};

std::string duration_cell(const nlohmann::json& estimate, const char* key) {
  const auto at = estimate.find(key);
  return at != estimate.end() && at->is_number_integer() ? format_duration(at->get<std::int64_t>()) : "-";
}

Result<> run_plan(Context& context, Session& session, const PlanArguments& a) {
  nlohmann::json body{{"image", a.image}, {"count", a.count}};
  if (a.version > 0) body["version"] = a.version;
  if (!a.vmtype.empty()) body["vmtype"] = a.vmtype;
  if (a.memory_mib > 0) body["memory_mib"] = a.memory_mib;
  if (a.cpus > 0) body["cpus"] = a.cpus;
  if (!a.cluster.empty()) body["cluster"] = a.cluster;
  if (!a.node.empty()) body["node"] = a.node;
  if (!a.at.empty()) {
    auto at = parse_local_time(a.at);
    if (!at) return fail(at.error());
    body["at"] = *at;
  }
  auto plan = session.post("/plan", body);
  if (!plan) return fail(plan.error());
  context.console.result(*plan, describe_plan(*plan));
  // A script asks whether the class fits.
  if (plan->value("missing", 0) > 0) context.exit_code = ExitCode::exhausted;
  return {};
}

}  // namespace

Result<std::int64_t> parse_local_time(const std::string& text) {
  for (const char* form : {"%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%S"}) {
    std::tm parts{};
    const char* end = ::strptime(text.c_str(), form, &parts);
    if (!end || *end != '\0') continue;
    const std::tm asked = parts;
    parts.tm_isdst = -1;
    const auto seconds = std::mktime(&parts);
    // mktime makes the 31st of February a day of March.
    if (seconds < 0 || parts.tm_mday != asked.tm_mday || parts.tm_mon != asked.tm_mon) break;
    return std::int64_t{seconds} * 1000;
  }
  return fail(ErrorCode::invalid_argument,
              "--at is a local time such as 2026-11-21T09:00, not '" + text + "'", "at");
}

std::string describe_plan(const nlohmann::json& plan) {
  const auto request = plan.value("request", nlohmann::json::object());
  const auto estimate = plan.value("estimate_s", nlohmann::json::object());
  std::string text = cell(plan, "fits") + " of " + cell(plan, "count") + " fit: " + cell(plan, "image_name") +
                     " version " + cell(request, "version") + ", " + cell(request, "memory_mib") +
                     " MiB and " + cell(request, "cpus") + " cpus each, policy " + cell(plan, "policy") +
                     "\n";
  if (const auto b = plan.find("bottleneck"); b != plan.end() && b->is_object()) {
    text += "Short: " + cell(*b, "text") + "\n";
    if (cell(*b, "remedy") != "-") text += "Nearest remedy: " + cell(*b, "remedy") + "\n";
    const std::string smaller = cell(*b, "memory_mib_that_fits");
    if (smaller != "-" && smaller != "0") text += "With " + smaller + " MiB each all would fit.\n";
  }
  if (cell(plan, "fits") != "0") {
    text += "Takes about " + duration_cell(estimate, "total") + ": " + duration_cell(estimate, "fetch") +
            " to fetch the image, " + duration_cell(estimate, "boot") + " to boot\n";
  }
  for (const auto& note : plan.value("notes", nlohmann::json::array())) {
    if (note.is_string()) text += "  (" + note.get<std::string>() + ")\n";
  }
  std::vector<std::vector<std::string>> rows = {
      {"NODE", "CLUSTER", "VMS", "FETCH MiB", "TAKES NO MORE", "WHAT HELPS"}};
  for (const auto& one : plan.value("per_node", nlohmann::json::array())) {
    rows.push_back({cell(one, "host"), cell(one, "cluster"), cell(one, "vms"), cell(one, "fetch_mib"),
                    cell(one, "reason"), cell(one, "fix")});
  }
  return printable(text, true) + "\n" + render_table(rows);
}

std::string describe_why(const nlohmann::json& why) {
  const std::string chosen = cell(why, "chosen");
  const auto request = why.value("request", nlohmann::json::object());
  std::string text = "Asked for: " + cell(request, "memory_mib") + " MiB, " + cell(request, "cpus") +
                     " cpus, " + cell(request, "image") + " version " + cell(request, "version");
  for (const char* pin : {"cluster", "node"}) {
    if (cell(request, pin) != "-") text += std::string(", ") + pin + " " + cell(request, pin);
  }
  text += "\nPolicy: " + cell(why, "policy") + "\n" +
          (chosen == "-" ? "No node was chosen. Nearest remedy: " + cell(why, "nearest_fix")
                         : "Chosen: " + chosen) +
          "\n\n";
  std::vector<std::vector<std::string>> rows = {
      {"RANK", "NODE", "CLUSTER", "VMS", "MEM LEFT MiB", "CPUS LEFT", "IMAGE", "WHY", "WHAT HELPS"}};
  const auto nodes = why.value("nodes", nlohmann::json::array());
  for (const auto& one : nodes) {
    rows.push_back({cell(one, "rank") == "0" ? "-" : cell(one, "rank"), cell(one, "host"),
                    cell(one, "cluster"), cell(one, "vms"), cell(one, "memory_left_mib"),
                    cell(one, "cpus_left"), cell(one, "has_image"), cell(one, "reason"), cell(one, "fix")});
  }
  text = printable(text, true) + render_table(rows);
  if (why.value("others", 0) > 0) text += "and " + cell(why, "others") + " more nodes\n";
  if (const auto task = why.find("task"); task != why.end() && task->is_object()) {
    const std::string queue = queue_text(*task);
    if (!queue.empty()) text += "\nNow: " + printable(queue) + "\n";
  }
  return text;
}

void add_plan_command(CLI::App& app, Context& context) {
  auto* command = app.add_subcommand("plan", "Would a class find room, what is short, how long does it take");
  auto arguments = std::make_shared<PlanArguments>();
  auto& a = *arguments;
  command->add_option("--image", a.image, "Image id")->required();
  command->add_option("--count", a.count, "How many VMs")->required()->check(CLI::Range(1, 10'000));
  command->add_option("--version", a.version, "This version, not the one in use")->check(CLI::PositiveNumber);
  command->add_option("--vmtype,--type", a.vmtype, "Size, see the cloud's VM types");
  command->add_option("--memory-mib", a.memory_mib, "Memory of each, instead of the type's")
      ->check(CLI::PositiveNumber);
  command->add_option("--cpus", a.cpus, "Cpus of each, instead of the type's")->check(CLI::PositiveNumber);
  command->add_option("--cluster", a.cluster, "Only in this cluster");
  command->add_option("--node", a.node, "Only on this node");
  command->add_option("--at", a.at, "For this local time, such as 2026-11-21T09:00, not for now");
  on_command(*command, context,
             [&context, arguments](Session& session) { return run_plan(context, session, *arguments); });
}

}  // namespace educloud::cli
