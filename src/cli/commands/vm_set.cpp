#include "cli/commands/vm_set.hpp"

#include <CLI/CLI.hpp>

#include <charconv>

#include "cli/commands/context.hpp"
#include "cli/commands/vm_view.hpp"

namespace educloud::cli {
namespace {

constexpr const char* kAny = "any";

/// "latest" is 0: the one in use at each start.
Result<int> version_number(const std::string& text) {
  if (text == "latest") return 0;
  int number = 0;
  const auto* end = text.data() + text.size();
  const auto read = std::from_chars(text.data(), end, number);
  if (read.ec == std::errc{} && read.ptr == end && number > 0) return number;
  return fail(ErrorCode::invalid_argument, "--version is the number of a version, or 'latest'", "version");
}

Result<> set_vm(Context& context, Session& session, const VmSetArguments& a) {
  auto body = vm_change(a);
  if (!body) return fail(body.error());
  auto vm = session.patch("/vms/" + http::url_encode(a.insid), *body);
  if (!vm) return fail(vm.error());
  add_addresses(*vm);
  std::string text = describe_vm(*vm);
  const std::string state = cell(*vm, "state");
  if (waits_for_start(*body) && state != "defined" && state != "stopped") {
    text += "What runs goes on as it was started: this holds from the next start on (educloud vm stop " +
            a.insid + ", then educloud vm run).\n";
  }
  context.console.result(*vm, text);
  return {};
}

}  // namespace

CLI::Option* add_autostart(CLI::App& command, std::optional<bool>& autostart) {
  return command.add_flag_function(
      "--autostart,!--no-autostart", [&autostart](std::int64_t count) { autostart = count > 0; },
      "Start it again when its node comes back after a reboot (servers do unless told otherwise)");
}

void add_folders(CLI::App& command, std::string& folders) {
  command
      .add_option("--folders", folders,
                  "How shared folders reach it from its next start on, instead of its OS type's way")
      ->check(CLI::IsMember({"virtiofs", "smb"}));
}

Result<nlohmann::json> vm_change(const VmSetArguments& a) {
  auto body = nlohmann::json::object();
  if (!a.name.empty()) body["name"] = a.name;
  if (!a.folders.empty()) body["folder_protocol"] = a.folders;
  if (a.autostart) body["autostart"] = *a.autostart;
  if (!a.cluster.empty()) body["cluster"] = a.cluster == kAny ? "" : a.cluster;
  if (!a.node.empty()) body["node"] = a.node == kAny ? "" : a.node;
  if (!a.vmtype.empty()) body["vmtype"] = a.vmtype;
  if (a.memory_mib > 0) body["memory_mib"] = a.memory_mib;
  if (a.cpus > 0) body["cpus"] = a.cpus;
  if (!a.version.empty()) {
    auto version = version_number(a.version);
    if (!version) return fail(version.error());
    body["version"] = *version;
  }
  if (!body.empty()) return body;
  return fail(
      ErrorCode::invalid_argument,
      "give what to change: --name, --autostart, --no-autostart, --folders, --node, --cluster, --type, "
      "--memory-mib, --cpus or --version",
      "name");
}

bool waits_for_start(const nlohmann::json& change) {
  for (const char* key : {"folder_protocol", "cluster", "node", "vmtype", "memory_mib", "cpus", "version"}) {
    if (change.contains(key)) return true;
  }
  return false;
}

void add_vm_set_command(CLI::App& vm, Context& context) {
  auto* set = vm.add_subcommand(
      "set", "Change its definition: name and autostart at once, all else from its next start on");
  auto a = std::make_shared<VmSetArguments>();
  set->add_option("VM", a->insid, "Instance id")->required();
  set->add_option("--name", a->name, "New name");
  add_autostart(*set, a->autostart);
  add_folders(*set, a->folders);
  set->add_option("--node", a->node, "Only there; any: wherever there is room");
  set->add_option("--cluster", a->cluster, "Only there; any: wherever there is room");
  set->add_option("--type", a->vmtype, "VM type: its memory and cpus too, unless they are given");
  set->add_option("--memory-mib", a->memory_mib, "Memory instead of the type's")
      ->check(CLI::Range(64, 4'000'000));
  set->add_option("--cpus", a->cpus, "CPUs instead of the type's")->check(CLI::Range(1, 256));
  set->add_option("--version", a->version, "Always this version; latest: the one in use at each start");
  on_command(*set, context, [&context, a](Session& session) { return set_vm(context, session, *a); });
}

}  // namespace educloud::cli
