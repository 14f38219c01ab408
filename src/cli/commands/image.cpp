#include <CLI/CLI.hpp>

#include "cli/commands/context.hpp"
#include "cli/commands/wait.hpp"
#include "cli/core/text.hpp"
#include "common/base/bytes.hpp"

namespace educloud::cli {
namespace {

std::string size_cell(const nlohmann::json& object, const char* key) {
  const auto at = object.find(key);
  if (at == object.end() || !at->is_number_integer() || at->get<std::int64_t>() <= 0) return "-";
  return to_string(Bytes{at->get<std::uint64_t>()});
}

std::string time_cell(const nlohmann::json& object, const char* key) {
  const auto at = object.find(key);
  return at == object.end() || !at->is_number_integer() ? "-" : format_time(at->get<std::int64_t>());
}

std::string path_of(const std::string& imgid) {
  return "/images/" + http::url_encode(imgid);
}

Result<> list_images(Context& context, Session& session) {
  auto images = session.list("/images");
  if (!images) return fail(images.error());
  std::vector<std::vector<std::string>> rows = {
      {"IMAGE", "NAME", "STATE", "VERSION", "SIZE", "DISK", "OS", "USAGE", "OWNER"}};
  for (const auto& one : *images) {
    rows.push_back({cell(one, "imgid"), cell(one, "name"), cell(one, "state"), cell(one, "version"),
                    size_cell(one, "size_bytes"), size_cell(one, "virtual_size_bytes"), cell(one, "ostype"),
                    cell(one, "usage"), cell(one, "owner")});
  }
  context.console.result({{"items", *images}}, render_table(rows));
  return {};
}

Result<> show_image(Context& context, Session& session, const std::string& imgid) {
  auto image = session.get(path_of(imgid));
  if (!image) return fail(image.error());
  std::vector<std::vector<std::string>> rows;
  for (const char* key : {"imgid", "name", "state", "version", "ostype", "usage", "database_imgid",
                          "database_state", "owner", "description", "tid"}) {
    rows.push_back({key, cell(*image, key)});
  }
  rows.push_back({"size", size_cell(*image, "size_bytes")});
  rows.push_back({"disk", size_cell(*image, "virtual_size_bytes")});
  rows.push_back({"created", time_cell(*image, "created_at")});
  context.console.result(*image, render_table(rows));
  return {};
}

Result<> list_versions(Context& context, Session& session, const std::string& imgid) {
  auto versions = session.list(path_of(imgid) + "/versions");
  if (!versions) return fail(versions.error());
  std::vector<std::vector<std::string>> rows = {
      {"VERSION", "IN USE", "SIZE", "DISK", "DATABASE", "PARENT", "CREATED", "DIGEST"}};
  for (const auto& one : *versions) {
    rows.push_back({cell(one, "version"), cell(one, "current"), size_cell(one, "size_bytes"),
                    size_cell(one, "virtual_size_bytes"), cell(one, "database_version"), cell(one, "parent"),
                    time_cell(one, "created_at"), cell(one, "digest").substr(0, 16)});
  }
  context.console.result({{"items", *versions}}, render_table(rows));
  return {};
}

/// Starts a task with `post` and follows it.
Result<> upkeep(Context& context, Session& session, const std::string& path, const nlohmann::json& body,
                const WaitOptions& wait) {
  auto task = session.post(path, body);
  if (!task) return fail(task.error());
  return report_task(context, session, std::move(*task), Goal::ended, wait);
}

void add_upkeep_commands(CLI::App& image, Context& context) {
  auto* rollback = image.add_subcommand("rollback", "Make an older version the one in use");
  auto imgid = std::make_shared<std::string>();
  auto wait = std::make_shared<WaitOptions>();
  auto to = std::make_shared<int>(0);
  rollback->add_option("IMAGE", *imgid, "Image id")->required();
  rollback->add_option("--to", *to, "Version")->required()->check(CLI::PositiveNumber);
  add_wait_options(*rollback, *wait);
  on_command(*rollback, context, [=, &context](Session& session) {
    return upkeep(context, session, path_of(*imgid) + "/rollback", {{"version", *to}}, *wait);
  });

  auto* prune = image.add_subcommand("prune", "Remove versions that nothing needs");
  auto versions = std::make_shared<std::vector<int>>();
  auto keep = std::make_shared<int>(0);
  prune->add_option("IMAGE", *imgid, "Image id")->required();
  auto* by_number =
      prune->add_option("--versions", *versions, "Exactly these")->delimiter(',')->check(CLI::PositiveNumber);
  prune->add_option("--keep", *keep, "All but the newest N and those in use")
      ->check(CLI::PositiveNumber)
      ->excludes(by_number);
  add_wait_options(*prune, *wait);
  on_command(*prune, context, [=, &context](Session& session) -> Result<> {
    if (versions->empty() && *keep == 0)
      return fail(ErrorCode::invalid_argument, "give --versions or --keep", "versions");
    auto body = nlohmann::json::object();
    if (!versions->empty()) body["versions"] = *versions;
    if (*keep > 0) body["keep"] = *keep;
    return upkeep(context, session, path_of(*imgid) + "/prune", body, *wait);
  });

  auto* remove = image.add_subcommand("delete", "Delete an image with all its versions");
  remove->add_option("IMAGE", *imgid, "Image id")->required();
  add_wait_options(*remove, *wait);
  on_command(*remove, context, [=, &context](Session& session) -> Result<> {
    auto task = session.remove(path_of(*imgid));
    if (!task) return fail(task.error());
    return report_task(context, session, std::move(*task), Goal::gone, *wait);
  });
}

void add_set_command(CLI::App& image, Context& context) {
  struct Arguments {
    std::string imgid, name, usage;
    std::optional<std::string> description;
    int database_gib = 0;
    WaitOptions wait;
  };
  auto* set = image.add_subcommand("set", "Change its name, its description, or what it is used for");
  auto arguments = std::make_shared<Arguments>();
  auto& a = *arguments;
  set->add_option("IMAGE", a.imgid, "Image id")->required();
  set->add_option("--name", a.name, "New name");
  set->add_option("--description", a.description, "New description");
  auto* usage = set->add_option("--usage", a.usage, "server: it gets a disk for its data, see --database-gib")
                    ->check(CLI::IsMember({"desktop", "server"}));
  set->add_option("--database-gib", a.database_gib, "Size of the disk for a server's data (default 10)")
      ->check(CLI::Range(1, 2048))
      ->needs(usage);
  add_wait_options(*set, a.wait);
  on_command(*set, context, [&context, arguments](Session& session) -> Result<> {
    const auto& given = *arguments;
    auto body = nlohmann::json::object();
    if (!given.name.empty()) body["name"] = given.name;
    if (given.description) body["description"] = *given.description;
    if (given.description && given.description->empty()) body["clear_description"] = true;
    if (!given.usage.empty()) body["usage"] = given.usage;
    if (given.database_gib > 0) body["database_gib"] = given.database_gib;
    if (body.empty())
      return fail(ErrorCode::invalid_argument, "give --name, --description or --usage", "usage");
    auto changed = session.patch(path_of(given.imgid), body);
    if (!changed) return fail(changed.error());
    const std::string tid = cell(*changed, "tid");
    if (given.wait.wait && !given.usage.empty() && !tid.empty() && tid != "-") {
      auto last = wait_for_task(context, session, tid, Goal::ended, given.wait.timeout_s);
      if (!last) return fail(last.error());
    }
    return show_image(context, session, given.imgid);
  });
}

}  // namespace

void add_image_commands(CLI::App& app, Context& context) {
  auto* image = app.add_subcommand("image", "Images and their versions");
  image->require_subcommand(1);
  auto imgid = std::make_shared<std::string>();
  auto* list = image->add_subcommand("list", "All images");
  on_command(*list, context, [&context](Session& session) { return list_images(context, session); });
  auto* show = image->add_subcommand("show", "One image");
  show->add_option("IMAGE", *imgid, "Image id")->required();
  on_command(*show, context,
             [&context, imgid](Session& session) { return show_image(context, session, *imgid); });
  auto* versions = image->add_subcommand("versions", "The versions of an image");
  versions->add_option("IMAGE", *imgid, "Image id")->required();
  on_command(*versions, context,
             [&context, imgid](Session& session) { return list_versions(context, session, *imgid); });
  add_set_command(*image, context);
  add_image_import_command(*image, context);
  add_image_edit_commands(*image, context);
  add_upkeep_commands(*image, context);
  add_image_push_command(*image, context);
  add_image_read_commands(*image, context);
}

}  // namespace educloud::cli
