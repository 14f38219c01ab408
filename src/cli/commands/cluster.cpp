#include <CLI/CLI.hpp>

#include "cli/commands/context.hpp"
#include "cli/core/text.hpp"

namespace educloud::cli {

void add_cluster_commands(CLI::App& app, Context& context) {
  struct Arguments {
    std::string host, mode;
  };
  auto* cluster = app.add_subcommand("cluster", "The cloud's clusters");
  cluster->require_subcommand(1);
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
