#include <CLI/CLI.hpp>

#include "clc/store/backup.hpp"
#include "cli/commands/context.hpp"
#include "cli/core/text.hpp"
#include "common/base/bytes.hpp"
#include "common/base/clock.hpp"
#include "common/config/config.hpp"

namespace educloud::cli {
namespace {

namespace fs = std::filesystem;

std::string size_cell(const nlohmann::json& backup) {
  const auto at = backup.find("bytes");
  return at != backup.end() && at->is_number_unsigned() ? to_string(Bytes{at->get<std::uint64_t>()}) : "-";
}

Result<> list_backups(Context& context, Session& session) {
  auto backups = session.get("/backups");
  if (!backups) return fail(backups.error());
  std::vector<std::vector<std::string>> rows = {{"AT", "KIND", "SIZE", "FILE"}};
  for (const auto& one : backups->value("items", nlohmann::json::array())) {
    const auto at = one.find("at");
    rows.push_back({at != one.end() && at->is_number_integer() ? format_time(at->get<std::int64_t>()) : "-",
                    cell(one, "kind"), size_cell(one), cell(one, "file")});
  }
  context.console.result(*backups, render_table(rows));
  return {};
}

Result<> back_up(Context& context, Session& session, const fs::path& to) {
  auto made = session.post("/backups");
  if (!made) return fail(made.error());
  const std::string file = cell(*made, "file");
  std::string text =
      "wrote " + file + ": " + size_cell(*made) + " in " + cell(*made, "seconds") + " s, checked";
  if (!to.empty()) {
    const auto target = fs::absolute(to);
    auto copied = clc::store::copy_backup(file, target);
    if (!copied) {
      return fail(copied.error(),
                  "the backup is made, but copying " + file + " (on clc's host, for root) failed");
    }
    (*made)["copy"] = target.string();
    text += "; copied to " + target.string();
  }
  context.console.result(*made, text);
  return {};
}

struct RestoreArguments {
  fs::path file, config = "/etc/educloud/clc.conf", state_dir;
};

Result<fs::path> state_dir_of(const RestoreArguments& a) {
  if (!a.state_dir.empty()) return fs::absolute(a.state_dir);
  auto reader = config::Reader::open(a.config);
  if (!reader) return fail(reader.error());
  // The daemon checks the rest of its file.
  fs::path state_dir = "/var/lib/educloud/clc";
  reader->path("state_dir", state_dir);
  return state_dir;
}

Result<> restore(Context& context, const RestoreArguments& a) {
  auto state_dir = state_dir_of(a);
  if (!state_dir) return fail(state_dir.error());
  const auto database = *state_dir / "clc.sqlite";
  auto done = clc::store::restore_database(database, fs::absolute(a.file), SystemClock().wall_ms());
  if (!done) return fail(done.error());
  const nlohmann::json document = {{"database", database.string()}, {"set_aside", done->set_aside.string()},
                                   {"schema", done->schema},        {"accounts", done->accounts},
                                   {"images", done->images},        {"open_tasks", done->open_tasks}};
  std::string text = "restored " + database.string() + ": " + std::to_string(done->accounts) + " accounts, " +
                     std::to_string(done->images) + " images, " + std::to_string(done->open_tasks) +
                     " open tasks.";
  if (!done->set_aside.empty()) text += " What was there is kept as " + done->set_aside.string() + ".";
  context.console.result(document, text + " Start clc now; everybody has to log in again.");
  return {};
}

}  // namespace

void add_backup_commands(CLI::App& app, Context& context) {
  auto to = std::make_shared<fs::path>();
  auto list = std::make_shared<bool>(false);
  auto* backup = app.add_subcommand("backup", "Copy clc's database now, while it is in use");
  auto* to_option =
      backup->add_option("--to", *to, "Also copy it to this new file; only on clc's host, by root");
  backup->add_flag("--list", *list, "Only show what backups there are")->excludes(to_option);
  on_command(*backup, context, [=, &context](Session& session) {
    return *list ? list_backups(context, session) : back_up(context, session, *to);
  });

  auto a = std::make_shared<RestoreArguments>();
  auto* command = app.add_subcommand(
      "restore", "Put a backup in the place of clc's database, on its host, while clc does not run");
  command->add_option("FILE", a->file, "The backup")->required();
  command->add_option("--config", a->config, "Config of clc")->capture_default_str();
  command->add_option("--state-dir", a->state_dir, "Its state_dir, instead of the config's");
  on_command(*command, context, [=, &context] { return restore(context, *a); });
}

}  // namespace educloud::cli
