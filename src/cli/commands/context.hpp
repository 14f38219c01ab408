#pragma once

#include <functional>

#include "cli/core/console.hpp"
#include "cli/core/exit_code.hpp"
#include "cli/core/session.hpp"

namespace CLI {
class App;
}

namespace educloud::cli {

/// What every command has at hand.
struct Context {
  Console console;
  SessionOptions session;
  ExitCode exit_code = ExitCode::ok;
};

/// Makes `action` what happens when `command` is given on the command line; its error is shown and becomes
/// the exit code.
void on_command(CLI::App& command, Context& context, std::function<Result<>()> action);
/// The same with an open session.
void on_command(CLI::App& command, Context& context, std::function<Result<>(Session&)> action);

void add_init_command(CLI::App& app, Context& context);
void add_session_commands(CLI::App& app, Context& context);  ///< login, logout, status
void add_node_commands(CLI::App& app, Context& context);
void add_cluster_commands(CLI::App& app, Context& context);
void add_node_roll_command(CLI::App& node, Context& context);
void add_image_commands(CLI::App& app, Context& context);
void add_image_edit_commands(CLI::App& image, Context& context);  ///< build, modify, submit
void add_image_import_command(CLI::App& image, Context& context);
void add_image_push_command(CLI::App& image, Context& context);
void add_image_read_commands(CLI::App& image, Context& context);  ///< export, url, diff, compact
void add_walrus_commands(CLI::App& app, Context& context);        ///< the local store of walrus
void add_vm_commands(CLI::App& app, Context& context);
void add_vm_operate_commands(CLI::App& vm, Context& context);   ///< pause, resume, restart, limit
void add_vm_snapshot_commands(CLI::App& vm, Context& context);  ///< snapshot take, list, restore, delete
void add_type_commands(CLI::App& app, Context& context);        ///< vmtype, ostype
void add_task_commands(CLI::App& app, Context& context);
void add_dead_letter_commands(CLI::App& app, Context& context);
void add_backup_commands(CLI::App& app, Context& context);  ///< backup, and the local restore
void add_plan_command(CLI::App& app, Context& context);

/// Text of a JSON member for a table: strings as they are, numbers and booleans as JSON writes them, "-" for
/// null, missing and empty.
std::string cell(const nlohmann::json& object, std::string_view key);

}  // namespace educloud::cli
