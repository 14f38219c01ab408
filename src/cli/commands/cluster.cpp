#include <CLI/CLI.hpp>

#include "cli/commands/context.hpp"
#include "cli/core/text.hpp"

namespace educloud::cli {
namespace {

/// Seconds since its controller was heard of.
std::string seen_cell(const nlohmann::json& cluster) {
  const auto at = cluster.find("age_ms");
  if (at == cluster.end() || !at->is_number_integer() || at->get<std::int64_t>() < 0) return "never";
  return std::to_string(at->get<std::int64_t>() / 1000) + " s ago";
}

Result<> list_clusters(Context& context, Session& session) {
  auto clusters = session.list("/clusters");
  if (!clusters) return fail(clusters.error());
  std::vector<std::vector<std::string>> rows = {
      {"CLUSTER", "ALIVE", "SEEN", "NODES", "ALIVE", "DATABASE MODE", "ADDRESS", "VERSION"}};
  for (const auto& one : *clusters) {
    rows.push_back({cell(one, "host"), cell(one, "alive"), seen_cell(one), cell(one, "nodes"),
                    cell(one, "nodes_alive"), cell(one, "database_mode"), cell(one, "address"),
                    cell(one, "version")});
  }
  context.console.result({{"items", *clusters}}, render_table(rows));
  return {};
}

}  // namespace

void add_cluster_commands(CLI::App& app, Context& context) {
  struct Arguments {
    std::string host, mode;
  };
  auto* cluster = app.add_subcommand("cluster", "The cloud's clusters");
  cluster->require_subcommand(1);
  auto* list = cluster->add_subcommand("list", "All of them, and how their nodes reach the disks of servers");
  on_command(*list, context, [&context](Session& session) { return list_clusters(context, session); });
  auto* set = cluster->add_subcommand("set", "Change how its nodes reach the disks of servers");
  auto a = std::make_shared<Arguments>();
  set->add_option("CLUSTER", a->host, "Host name of its cluster controller")->required();
  set->add_option("--database-mode", a->mode, "From the next start of a server on")
      ->required()
      ->check(CLI::IsMember({"iscsi", "nbd", "copy"}));
  on_command(*set, context, [&context, a](Session& session) -> Result<> {
    auto changed = session.patch("/clusters/" + http::url_encode(a->host), {{"database_mode", a->mode}});
    if (!changed) return fail(changed.error());
    context.console.result(*changed, cell(*changed, "host") + ": " + cell(*changed, "database_mode") + "\n");
    return {};
  });
}

}  // namespace educloud::cli
