#include <CLI/CLI.hpp>

#include "cli/commands/context.hpp"
#include "cli/core/text.hpp"

namespace educloud::cli {
namespace {

/// One word for scripts: unregistered, lost, down, or what an administrator lets it do, "up" for everything.
void add_state(nlohmann::json& node) {
  if (!node.is_object() || node.contains("state")) return;
  const std::string admin_state = node.value("admin_state", "enabled");
  if (node.contains("registered") && node["registered"] == false) {
    node["state"] = "unregistered";
  } else if (node.contains("lease") && node["lease"] == "lost") {
    node["state"] = "lost";
  } else if (!node.contains("alive") || node["alive"] != true) {
    node["state"] = "down";
  } else {
    node["state"] = admin_state == "enabled" ? "up" : admin_state;
  }
}

Result<> list_nodes(Context& context, Session& session) {
  auto nodes = session.list("/nodes");
  if (!nodes) return fail(nodes.error());
  for (auto& one : *nodes) add_state(one);
  std::vector<std::vector<std::string>> rows = {{"NODE", "CLUSTER", "STATE", "HYPERVISOR", "CPUS", "CPU %",
                                                 "MEM MiB", "USED MiB", "DISK MiB", "USED MiB", "ADDRESS"}};
  for (const auto& one : *nodes) {
    rows.push_back({cell(one, "host"), cell(one, "cluster"), cell(one, "state"), cell(one, "hypervisor"),
                    cell(one, "cpus"), cell(one, "cpu_usage"), cell(one, "mem_mib"),
                    cell(one, "mem_usage_mib"), cell(one, "disk_mib"), cell(one, "disk_usage_mib"),
                    cell(one, "address")});
  }
  context.console.result({{"items", *nodes}}, render_table(rows));
  return {};
}

Result<> show_node(Context& context, Session& session, const std::string& host) {
  auto node = session.get("/nodes/" + http::url_encode(host));
  if (!node) return fail(node.error());
  add_state(*node);
  std::vector<std::vector<std::string>> rows;
  for (const auto& [key, value] : node->items()) {
    if (!value.is_structured()) rows.push_back({key, cell(*node, key)});
  }
  std::string text = render_table(rows);
  if (const auto warnings = node->find("warnings"); warnings != node->end() && warnings->is_array()) {
    for (const auto& one : *warnings)
      text += "warning: " + (one.is_string() ? one.get<std::string>() : one.dump()) + "\n";
  }
  const auto add_table = [&](const char* key, const std::vector<const char*>& columns) {
    const auto list = node->find(key);
    if (list == node->end() || !list->is_array() || list->empty()) return;
    std::vector<std::vector<std::string>> table(1);
    for (const char* column : columns) table[0].push_back(column);
    for (const auto& one : *list) {
      auto& row = table.emplace_back();
      for (const char* column : columns) row.push_back(one.is_object() ? cell(one, column) : "-");
    }
    text += "\n" + render_table(table);
  };
  add_table("vms", {"insid", "state", "vcpu", "mem", "phy_cpu", "phy_mem"});
  add_table("images", {"imgid", "version"});
  context.console.result(*node, text);
  return {};
}

Result<> change_node(Context& context, Session& session, const std::string& host, const char* state) {
  auto node = session.patch("/nodes/" + http::url_encode(host), {{"state", state}});
  if (!node) return fail(node.error());
  add_state(*node);
  context.console.result(*node, printable(host) + ": " + cell(*node, "state") + "\n");
  return {};
}

void add_change(CLI::App& node, Context& context, const char* verb, const char* state, const char* about) {
  auto* command = node.add_subcommand(verb, about);
  auto host = std::make_shared<std::string>();
  command->add_option("NODE", *host, "Host name")->required();
  on_command(*command, context, [&context, host, state](Session& session) {
    return change_node(context, session, *host, state);
  });
}

}  // namespace

void add_node_commands(CLI::App& app, Context& context) {
  auto* node = app.add_subcommand("node", "The cloud's nodes");
  node->require_subcommand(1);
  auto* list = node->add_subcommand("list", "All nodes");
  on_command(*list, context, [&context](Session& session) { return list_nodes(context, session); });
  auto* show = node->add_subcommand("show", "One node: what it has, what runs there");
  auto host = std::make_shared<std::string>();
  show->add_option("NODE", *host, "Host name")->required();
  on_command(*show, context,
             [&context, host](Session& session) { return show_node(context, session, *host); });
  add_change(*node, context, "enable", "enabled", "Let it take VMs");
  add_change(*node, context, "no-new", "no_new", "No new VMs; what runs there runs on");
  add_change(*node, context, "drain", "drained",
             "No new VMs; what runs there moves away, or else is stopped");
  add_node_roll_command(*node, context);
}

}  // namespace educloud::cli
