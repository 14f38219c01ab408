#include "cli/core/session.hpp"

#include <unistd.h>

#include <CLI/CLI.hpp>

#include "cli/commands/context.hpp"
#include "cli/core/text.hpp"
#include "common/sys/file.hpp"

namespace educloud::cli {
namespace {

Result<> log_in(Context& context, const std::string& user, const std::filesystem::path& password_file) {
  auto session = Session::open_anonymous(context.session);
  if (!session) return fail(session.error());
  auto password = password_file.empty() ? Console::ask_password("Password of " + user + ": ")
                                        : sys::read_secret_file(password_file);
  if (!password) return fail(password.error());
  auto answer = session->post("/login", {{"user", user}, {"password", *password}});
  if (!answer) return fail(answer.error());
  const auto token = answer->find("token");
  if (token == answer->end() || !token->is_string())
    return fail(ErrorCode::internal, session->url() + ": the answer has no token");
  Credentials credentials{session->url(), user, token->get<std::string>(), 0};
  if (const auto at = answer->find("expires"); at != answer->end() && at->is_number_integer()) {
    credentials.expires_at = at->get<std::int64_t>();
  }
  const auto& file = context.session.credentials_file;
  if (auto ok = save_credentials(file, credentials); !ok) return ok;
  const nlohmann::json document = {
      {"url", credentials.url}, {"user", user}, {"expires", credentials.expires_at}, {"file", file.string()}};
  context.console.result(document, "logged in to " + credentials.url + " as " + user + ", until " +
                                       format_time(credentials.expires_at));
  return {};
}

Result<> log_out(Context& context) {
  const auto& file = context.session.credentials_file;
  auto session = Session::open(context.session);
  // The local copy goes in any case; a server that cannot be reached lets the token expire.
  Result<> told =
      session ? session->post("/logout").map([](const auto&) {}) : Result<>(fail(session.error()));
  if (::unlink(file.c_str()) != 0 && errno != ENOENT)
    return fail(errno_error("unlink " + file.string(), errno));
  if (!told && told.error().code != ErrorCode::unauthenticated) return told;
  context.console.result({{"logged_out", true}}, "logged out");
  return {};
}

Result<> show_status(Context& context, Session& session) {
  auto status = session.get("/status");
  if (!status) return fail(status.error());
  std::vector<std::vector<std::string>> rows = {{"cloud", session.url()}};
  for (const auto& [key, value] : status->items()) {
    if (!value.is_structured())
      rows.push_back({key, key.ends_with("_at") && value.is_number_integer()
                               ? format_time(value.get<std::int64_t>())
                               : cell(*status, key)});
  }
  std::string text = render_table(rows);
  const auto clusters = status->find("clusters");
  if (clusters != status->end() && clusters->is_array() && !clusters->empty()) {
    std::vector<std::vector<std::string>> table = {
        {"CLUSTER", "ALIVE", "ADDRESS", "VERSION", "DATABASE MODE"}};
    for (const auto& one : *clusters) {
      table.push_back({cell(one, "host"), cell(one, "alive"), cell(one, "address"), cell(one, "version"),
                       cell(one, "database_mode")});
    }
    text += "\n" + render_table(table);
  }
  context.console.result(*status, text);
  return {};
}

}  // namespace

void add_session_commands(CLI::App& app, Context& context) {
  auto* login = app.add_subcommand("login", "Log in and remember it");
  auto user = std::make_shared<std::string>("admin");
  auto password_file = std::make_shared<std::filesystem::path>();
  login->add_option("-u,--user", *user, "Login name")->capture_default_str();
  login->add_option("--password-file", *password_file, "File (0600) with the password, instead of asking");
  on_command(*login, context,
             [&context, user, password_file] { return log_in(context, *user, *password_file); });

  auto* logout = app.add_subcommand("logout", "End the login and forget it");
  on_command(*logout, context, [&context]() -> Result<> { return log_out(context); });

  auto* status = app.add_subcommand("status", "How the cloud is");
  on_command(*status, context, [&context](Session& session) { return show_status(context, session); });
}

}  // namespace educloud::cli
