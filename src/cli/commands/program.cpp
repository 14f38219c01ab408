#include "cli/commands/program.hpp"

#include <unistd.h>

#include <CLI/CLI.hpp>

#include "cli/commands/context.hpp"
#include "common/obs/log.hpp"

namespace educloud::cli {
namespace {

constexpr const char* kFooter =
    "Environment: EDUCLOUD_URL (the cloud's address), EDUCLOUD_TOKEN_FILE (where the login is kept).\n"
    "Exit codes: 0 done, 1 the task failed, 2 wrong usage or refused argument, 3 not logged in or no right,\n"
    "            4 not found, 5 conflict with the object's state, 6 no answer or time limit, 7 no capacity,\n"
    "            8 internal error, 130 interrupted.";

}  // namespace

void on_command(CLI::App& command, Context& context, std::function<Result<>()> action) {
  command.callback([&context, action = std::move(action)] {
    if (auto ok = action(); !ok) context.exit_code = context.console.error(ok.error());
  });
}

void on_command(CLI::App& command, Context& context, std::function<Result<>(Session&)> action) {
  command.callback([&context, action = std::move(action)] {
    auto session = Session::open(context.session);
    Result<> done = session ? action(*session) : Result<>(fail(session.error()));
    if (!done) context.exit_code = context.console.error(done.error());
  });
}

std::string cell(const nlohmann::json& object, std::string_view key) {
  const auto at = object.find(key);
  if (at == object.end() || at->is_null()) return "-";
  if (at->is_boolean()) return at->get<bool>() ? "yes" : "no";
  std::string text = at->is_string() ? at->get<std::string>()
                                     : at->dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  return text.empty() ? "-" : text;
}

std::unique_ptr<CLI::App> make_app(Context& context) {
  auto app = std::make_unique<CLI::App>("eduCloud: images and desktops from the command line", "educloud");
  app->fallthrough();
  app->require_subcommand(1);
  app->footer(kFooter);
  app->set_version_flag("--version", "educloud " EDUCLOUD_VERSION);
  app->add_option("--url", context.session.url, "Address of the cloud, for instance http://clc.school:8000")
      ->envname("EDUCLOUD_URL");
  app->add_option("--ca", context.session.ca_file,
                  "Certificate authority (PEM) that signed the cloud's certificate");
  app->add_flag("--json", context.console.json, "Print one JSON document instead of text");
  app->add_flag("-q,--quiet", context.console.quiet, "No progress");
  context.session.credentials_file = default_credentials_file();
  add_init_command(*app, context);
  add_session_commands(*app, context);
  add_node_commands(*app, context);
  add_cluster_commands(*app, context);
  add_image_commands(*app, context);
  add_vm_commands(*app, context);
  add_type_commands(*app, context);
  add_task_commands(*app, context);
  add_dead_letter_commands(*app, context);
  add_backup_commands(*app, context);
  add_plan_command(*app, context);
  add_walrus_commands(*app, context);
  return app;
}

int run_program(int argc, const char* const* argv) {
  // Library code logs for daemons; a person at a terminal wants its errors only.
  obs::init_log("educloud", "error");
  Context context;
  try {
    auto app = make_app(context);
    try {
      app->parse(argc, argv);
    } catch (const CLI::ParseError& error) {
      const int code = app->exit(error);
      return code == 0 ? 0 : static_cast<int>(ExitCode::usage);
    }
  } catch (const std::exception& error) {
    return static_cast<int>(context.console.error(Error{ErrorCode::internal, error.what()}));
  }
  return static_cast<int>(context.exit_code);
}

}  // namespace educloud::cli
