#include <CLI/CLI.hpp>

#include "cli/commands/context.hpp"
#include "cli/commands/limits.hpp"
#include "cli/core/text.hpp"

namespace educloud::cli {
namespace {

/// Empty and 0: not given.
struct VmTypeArguments {
  std::string name;
  std::int64_t memory_mib = 0;
  int cpus = 0;
  LimitOptions limits;
};

struct OsTypeArguments {
  std::string name, disk, nic, sound, folders;
};

std::string describe(const nlohmann::json& type) {
  std::vector<std::vector<std::string>> rows;
  for (const auto& [key, value] : type.items())
    rows.push_back({key, key == "limits" ? describe_limits(value) : cell(type, key)});
  return render_table(rows);
}

Result<> list_vmtypes(Context& context, Session& session) {
  auto types = session.list("/vmtypes");
  if (!types) return fail(types.error());
  std::vector<std::vector<std::string>> rows = {{"NAME", "MEMORY MIB", "CPUS", "LIMITS"}};
  for (const auto& one : *types) {
    const std::string limits = describe_limits(one.value("limits", nlohmann::json()));
    rows.push_back(
        {cell(one, "name"), cell(one, "memory_mib"), cell(one, "cpus"), limits.empty() ? "-" : limits});
  }
  context.console.result({{"items", *types}}, render_table(rows));
  return {};
}

Result<> list_ostypes(Context& context, Session& session) {
  auto types = session.list("/ostypes");
  if (!types) return fail(types.error());
  std::vector<std::vector<std::string>> rows = {{"NAME", "DISK", "NIC", "SOUND", "FOLDERS"}};
  for (const auto& one : *types)
    rows.push_back({cell(one, "name"), cell(one, "disk_type"), cell(one, "nic_type"), cell(one, "sound_type"),
                    cell(one, "folder_protocol")});
  context.console.result({{"items", *types}}, render_table(rows));
  return {};
}

/// Changes what `body` says of the type, or makes it, which takes the `needed` keys at least.
Result<> set(Context& context, Session& session, const std::string& path, const nlohmann::json& body,
             std::initializer_list<const char*> needed, const std::string& needed_text) {
  if (body.empty())
    return fail(ErrorCode::invalid_argument, "give what to change, see --help", *needed.begin());
  auto type = session.patch(path, body);
  if (!type && type.error().code == ErrorCode::not_found) {
    for (const char* key : needed) {
      if (body.contains(key)) continue;
      return fail(ErrorCode::invalid_argument, type.error().message + ": to make it, give " + needed_text,
                  key);
    }
    type = session.put(path, body);
  }
  if (!type) return fail(type.error());
  context.console.result(*type, describe(*type));
  return {};
}

void add_delete(CLI::App& group, Context& context, const char* about, const std::string& path) {
  auto name = std::make_shared<std::string>();
  auto* command = group.add_subcommand("delete", about);
  command->add_option("NAME", *name, "Its name")->required();
  on_command(*command, context, [=, &context](Session& session) -> Result<> {
    auto gone = session.remove(path + http::url_encode(*name));
    if (!gone) return fail(gone.error());
    context.console.result(*gone, *name + " deleted");
    return {};
  });
}

void add_vmtype(CLI::App& app, Context& context) {
  auto* group = app.add_subcommand("vmtype", "Sizes of VMs");
  group->require_subcommand(1);
  on_command(*group->add_subcommand("list", "All sizes, and what VMs of them may take"), context,
             [&context](Session& session) { return list_vmtypes(context, session); });
  auto a = std::make_shared<VmTypeArguments>();
  auto* command = group->add_subcommand("set",
                                        "Make it, or change what is given. Its VMs keep the memory and cpus "
                                        "that they were defined with (vm set "
                                        "--type copies them anew) and take its limits at their next start");
  command->add_option("NAME", a->name, "Its name")->required();
  command->add_option("--memory-mib", a->memory_mib, "Memory; a new one needs it")
      ->check(CLI::Range(64, 4'000'000));
  command->add_option("--cpus", a->cpus, "CPUs; a new one needs it")->check(CLI::Range(1, 256));
  add_limit_options(*command, a->limits);
  on_command(*command, context, [=, &context](Session& session) {
    auto body = nlohmann::json::object();
    if (a->memory_mib > 0) body["memory_mib"] = a->memory_mib;
    if (a->cpus > 0) body["cpus"] = a->cpus;
    if (const auto limits = limits_body(a->limits); !limits.empty()) body["limits"] = limits;
    return set(context, session, "/vmtypes/" + http::url_encode(a->name), body, {"memory_mib", "cpus"},
               "--memory-mib and --cpus");
  });
  add_delete(*group, context, "Remove one that no VM has", "/vmtypes/");
}

void add_ostype(CLI::App& app, Context& context) {
  auto* group = app.add_subcommand("ostype", "Which devices an operating system has drivers for");
  group->require_subcommand(1);
  on_command(*group->add_subcommand("list", "All"), context,
             [&context](Session& session) { return list_ostypes(context, session); });
  auto a = std::make_shared<OsTypeArguments>();
  auto* command = group->add_subcommand(
      "set", "Make it, or change what is given: VMs of its images take it at their next start");
  command->add_option("NAME", a->name, "Its name")->required();
  command->add_option("--disk", a->disk, "Disk bus; a new one needs it")
      ->check(CLI::IsMember({"virtio", "sata", "ide"}));
  command->add_option("--nic", a->nic, "Network card; a new one needs it")
      ->check(CLI::IsMember({"virtio", "e1000", "rtl8139"}));
  command->add_option("--sound", a->sound, "Sound card (of a new one: none)")
      ->check(CLI::IsMember({"none", "ac97", "ich6", "ich9"}));
  command->add_option("--folders", a->folders, "How shared folders reach its guests (of a new one: virtiofs)")
      ->check(CLI::IsMember({"virtiofs", "smb"}));
  on_command(*command, context, [=, &context](Session& session) {
    auto body = nlohmann::json::object();
    const std::pair<const char*, const std::string*> given[] = {{"disk_type", &a->disk},
                                                                {"nic_type", &a->nic},
                                                                {"sound_type", &a->sound},
                                                                {"folder_protocol", &a->folders}};
    for (const auto& [key, value] : given) {
      if (!value->empty()) body[key] = *value;
    }
    return set(context, session, "/ostypes/" + http::url_encode(a->name), body, {"disk_type", "nic_type"},
               "--disk and --nic");
  });
  add_delete(*group, context, "Remove one that no image has", "/ostypes/");
}

}  // namespace

void add_type_commands(CLI::App& app, Context& context) {
  add_vmtype(app, context);
  add_ostype(app, context);
}

}  // namespace educloud::cli
