#include <CLI/CLI.hpp>

#include "cli/commands/context.hpp"
#include "cli/core/text.hpp"

namespace educloud::cli {
namespace {

std::string path_of(std::int64_t id) {
  return "/dead-letters/" + std::to_string(id);
}

std::string time_cell(const nlohmann::json& object, const char* key) {
  const auto at = object.find(key);
  return at != object.end() && at->is_number_integer() ? format_time(at->get<std::int64_t>()) : "-";
}

Result<> list_letters(Context& context, Session& session) {
  auto letters = session.list("/dead-letters");
  if (!letters) return fail(letters.error());
  std::vector<std::vector<std::string>> rows = {
      {"ID", "AT", "QUEUE", "REASON", "SENDER", "RETRIED", "CAUSE"}};
  for (const auto& one : *letters) {
    rows.push_back({cell(one, "id"), time_cell(one, "at"), cell(one, "queue"), cell(one, "reason"),
                    cell(one, "sender"), time_cell(one, "retried_at"), cell(one, "cause")});
  }
  context.console.result({{"items", *letters}}, render_table(rows));
  return {};
}

Result<> show_letter(Context& context, Session& session, std::int64_t id) {
  auto letter = session.get(path_of(id));
  if (!letter) return fail(letter.error());
  std::vector<std::vector<std::string>> rows;
  for (const char* key : {"id", "at", "queue", "kind", "reason", "cause", "exchange", "routing_key", "sender",
                          "bytes", "retried_at"}) {
    const std::string name = key;
    rows.push_back({name, name.ends_with("at") ? time_cell(*letter, key) : cell(*letter, key)});
  }
  context.console.result(*letter, render_table(rows) + "\n" + cell(*letter, "body"));
  return {};
}

Result<> retry_letter(Context& context, Session& session, std::int64_t id) {
  auto retried = session.post(path_of(id) + "/retry");
  if (!retried) return fail(retried.error());
  const std::string outcome = cell(*retried, "outcome");
  std::string text = "dead letter " + std::to_string(id) + ": ";
  if (outcome == "sent_again") {
    text += "the command is on its way again";
  } else if (outcome == "accept") {
    text += "the status counts now";
  } else {
    text += "the status does not count any more (" + outcome + ")";
  }
  context.console.result(*retried, text);
  return {};
}

Result<> drop_letters(Context& context, Session& session, std::int64_t id, bool all) {
  if (all == (id > 0)) {
    return fail(ErrorCode::invalid_argument, "name one dead letter by its ID, or give --all");
  }
  auto dropped = session.remove(all ? "/dead-letters" : path_of(id));
  if (!dropped) return fail(dropped.error());
  context.console.result(*dropped, cell(*dropped, "dropped") + " dropped");
  return {};
}

}  // namespace

void add_dead_letter_commands(CLI::App& app, Context& context) {
  auto* letter = app.add_subcommand("dead-letter", "Messages that somebody refused, or nobody took in time");
  letter->require_subcommand(1);
  auto* list = letter->add_subcommand("list", "All, newest first, each with its cause");
  on_command(*list, context, [&context](Session& session) { return list_letters(context, session); });

  auto id = std::make_shared<std::int64_t>(0);
  const auto add_id = [&](CLI::App& command) {
    return command.add_option("ID", *id, "Number of the dead letter")->check(CLI::PositiveNumber);
  };
  auto* show = letter->add_subcommand("show", "One, with the message itself");
  add_id(*show)->required();
  on_command(*show, context, [=, &context](Session& session) { return show_letter(context, session, *id); });

  auto* retry = letter->add_subcommand("retry", "Send its command, or judge its status, again");
  add_id(*retry)->required();
  on_command(*retry, context,
             [=, &context](Session& session) { return retry_letter(context, session, *id); });

  auto all = std::make_shared<bool>(false);
  auto* drop = letter->add_subcommand("drop", "Forget one, or all");
  add_id(*drop);
  drop->add_flag("--all", *all, "All of them");
  on_command(*drop, context,
             [=, &context](Session& session) { return drop_letters(context, session, *id, *all); });
}

}  // namespace educloud::cli
