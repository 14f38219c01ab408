#include <CLI/CLI.hpp>

#include <cstdio>

#include "cli/commands/context.hpp"
#include "cli/commands/vm_set.hpp"
#include "cli/commands/vm_view.hpp"
#include "cli/commands/wait.hpp"
#include "cli/core/text.hpp"
#include "common/sys/file.hpp"

namespace educloud::cli {
namespace {

constexpr const char* kLazyHelp = "Let it start while its image still arrives on the node";

std::string path_of(const std::string& insid) {
  return "/vms/" + http::url_encode(insid);
}

struct DefineArguments {
  std::string image, name, vmtype, cluster, node;
  std::int64_t memory_mib = 0;
  int cpus = 0, version = 0;
  bool temporary = false, lazy = false, server = false;
  std::optional<bool> autostart;
  std::string folders;
  std::string hostname, user;
  std::filesystem::path ssh_key_file, password_file;
  WaitOptions wait;
};

/// A public key file's line.
Result<std::string> read_key(const std::filesystem::path& file) {
  auto text = sys::read_file(file, 16 * 1024);
  if (!text) return text;
  while (!text->empty() && (text->back() == '\n' || text->back() == '\r')) text->pop_back();
  return text;
}

Result<nlohmann::json> define_body(const DefineArguments& a) {
  nlohmann::json body = {{"imgid", a.image}, {"kind", a.server ? "VS" : a.temporary ? "TVD" : "VD"}};
  const std::pair<const char*, const std::string*> texts[] = {
      {"name", &a.name},         {"vmtype", &a.vmtype}, {"cluster", &a.cluster},        {"node", &a.node},
      {"hostname", &a.hostname}, {"user", &a.user},     {"folder_protocol", &a.folders}};
  for (const auto& [key, value] : texts) {
    if (!value->empty()) body[key] = *value;
  }
  if (a.memory_mib > 0) body["memory_mib"] = a.memory_mib;
  if (a.cpus > 0) body["cpus"] = a.cpus;
  if (a.version > 0) body["version"] = a.version;
  if (a.lazy) body["lazy"] = true;
  if (a.autostart) body["autostart"] = *a.autostart;
  if (!a.ssh_key_file.empty()) {
    auto key = read_key(a.ssh_key_file);
    if (!key) return fail(key.error());
    body["ssh_key"] = std::move(*key);
  }
  if (!a.password_file.empty()) {
    auto password = sys::read_secret_file(a.password_file);
    if (!password) return fail(password.error());
    body["password"] = std::move(*password);
  }
  return body;
}

Result<> show_vm(Context& context, Session& session, const std::string& insid) {
  auto vm = session.get(path_of(insid));
  if (!vm) return fail(vm.error());
  add_addresses(*vm);
  context.console.result(*vm, describe_vm(*vm));
  return {};
}

Result<> define_vm(Context& context, Session& session, const DefineArguments& a) {
  auto body = define_body(a);
  if (!body) return fail(body.error());
  auto vm = session.post("/vms", *body);
  if (!vm) return fail(vm.error());
  const auto task = vm->find("task");
  if (a.temporary && a.wait.wait && task != vm->end() && task->is_object()) {
    auto last = wait_for_task(context, session, cell(*task, "tid"), Goal::running, a.wait.timeout_s);
    if (!last) return fail(last.error());
    return show_vm(context, session, cell(*vm, "insid"));
  }
  add_addresses(*vm);
  context.console.result(*vm, describe_vm(*vm));
  return {};
}

Result<> list_vms(Context& context, Session& session) {
  auto vms = session.list("/vms");
  if (!vms) return fail(vms.error());
  std::vector<std::vector<std::string>> rows = {
      {"VM", "NAME", "STATE", "IMAGE", "NODE", "DISPLAY", "WEB", "OWNER"}};
  for (auto& one : *vms) {
    add_addresses(one);
    const auto task = one.find("task");
    const std::string node = task != one.end() && task->is_object() ? cell(*task, "node") : "-";
    rows.push_back({cell(one, "insid"), cell(one, "name"), cell(one, "state"), cell(one, "image_name"), node,
                    cell(one, "display_address"), cell(one, "web_url"), cell(one, "owner")});
  }
  context.console.result({{"items", *vms}}, render_table(rows));
  return {};
}

/// "run" or "stop", then the VM as it is.
Result<> change_vm(Context& context, Session& session, const std::string& insid, const char* verb, Goal goal,
                   const WaitOptions& wait, bool lazy = false) {
  auto body = nlohmann::json::object();
  if (lazy) body["lazy"] = true;
  auto task = session.post(path_of(insid) + "/" + verb, body);
  if (!task) return fail(task.error());
  if (wait.wait) {
    auto last = wait_for_task(context, session, cell(*task, "tid"), goal, wait.timeout_s);
    if (!last) return fail(last.error());
  }
  auto shown = show_vm(context, session, insid);
  // A temporary desktop is gone once it has stopped.
  const bool vanished = !shown && goal == Goal::stopped && shown.error().code == ErrorCode::not_found;
  if (vanished) context.console.result(*task, insid + " stopped and gone");
  return vanished ? Result<>() : shown;
}

Result<> delete_vm(Context& context, Session& session, const std::string& insid, const WaitOptions& wait,
                   bool force) {
  auto vm = session.remove(path_of(insid) + (force ? "?force=true" : ""));
  if (!vm) return fail(vm.error());
  const auto task = vm->find("task");
  if (wait.wait && task != vm->end() && task->is_object()) {
    auto last = wait_for_task(context, session, cell(*task, "tid"), Goal::gone, wait.timeout_s);
    if (!last) return fail(last.error());
  }
  context.console.result(*vm, insid + (wait.wait ? " deleted" : " is being deleted"));
  return {};
}

Result<> save_screenshot(Context& context, Session& session, const std::string& insid, std::string out) {
  auto image = session.get_raw(path_of(insid) + "/screenshot");
  if (!image) return fail(image.error());
  if (image->substr(0, 8) != "\x89PNG\r\n\x1a\n")
    return fail(ErrorCode::corrupt, "the screenshot of " + insid + " is not a PNG");
  if (out.empty()) out = insid + ".png";
  if (auto ok = sys::write_file_atomically(std::filesystem::absolute(out), *image, 0600); !ok) return ok;
  context.console.result({{"insid", insid}, {"file", out}, {"bytes", image->size()}}, "wrote " + out);
  return {};
}

void add_define(CLI::App& vm, Context& context) {
  auto* define = vm.add_subcommand(
      "define", "Define a desktop or a server; with --temporary run one that is gone when it stops");
  auto arguments = std::make_shared<DefineArguments>();
  auto& a = *arguments;
  define->add_option("--image", a.image, "Image id")->required();
  define->add_option("--name", a.name, "Name, for people");
  define->add_option("--type", a.vmtype, "VM type (educloud vmtype list): its memory and cpus are copied");
  define->add_option("--memory-mib", a.memory_mib, "Memory instead of the type's")
      ->check(CLI::Range(16, 4'000'000));
  define->add_option("--cpus", a.cpus, "CPUs instead of the type's")->check(CLI::Range(1, 256));
  define->add_option("--cluster", a.cluster, "Only there");
  define->add_option("--node", a.node, "Only there");
  define->add_option("--version", a.version, "Always this version, not the one in use")
      ->check(CLI::PositiveNumber);
  define->add_option("--hostname", a.hostname, "What the guest is told it is called (cloud-init)");
  auto* user = define->add_option("--user", a.user, "Login made at the first boot");
  define->add_option("--ssh-key-file", a.ssh_key_file, "Public key that may log in as this user")
      ->needs(user);
  define->add_option("--password-file", a.password_file, "Its password (mode 0600)")->needs(user);
  auto* temporary = define->add_flag("--temporary", a.temporary, "Run it now, once");
  define->add_flag("--lazy", a.lazy, kLazyHelp)->needs(temporary);
  define->add_flag("--server", a.server, "A server: it has a disk for data that outlives its runs")
      ->excludes(temporary);
  add_autostart(*define, a.autostart)->excludes(temporary);
  add_folders(*define, a.folders);
  add_wait_options(*define, a.wait);
  on_command(*define, context,
             [&context, arguments](Session& session) { return define_vm(context, session, *arguments); });
}

}  // namespace

void add_vm_commands(CLI::App& app, Context& context) {
  auto* vm = app.add_subcommand("vm", "Desktops and servers");
  vm->require_subcommand(1);
  auto insid = std::make_shared<std::string>();
  auto wait = std::make_shared<WaitOptions>();
  const auto add = [&](const char* name, const char* about) {
    auto* command = vm->add_subcommand(name, about);
    command->add_option("VM", *insid, "Instance id")->required();
    return command;
  };
  add_define(*vm, context);
  add_vm_set_command(*vm, context);
  auto* list = vm->add_subcommand("list", "All desktops and servers");
  on_command(*list, context, [&context](Session& session) { return list_vms(context, session); });
  auto* show = add("show", "One of them: state, screen address and password");
  on_command(*show, context, [=, &context](Session& session) { return show_vm(context, session, *insid); });
  auto* run = add("run", "Start it, from the image as it is");
  auto lazy = std::make_shared<bool>(false);
  run->add_flag("--lazy", *lazy, kLazyHelp);
  add_wait_options(*run, *wait);
  on_command(*run, context, [=, &context](Session& session) {
    return change_vm(context, session, *insid, "run", Goal::running, *wait, *lazy);
  });
  auto* stop = add("stop", "Shut it down");
  add_wait_options(*stop, *wait);
  on_command(*stop, context, [=, &context](Session& session) {
    return change_vm(context, session, *insid, "stop", Goal::stopped, *wait);
  });
  auto* remove = add("delete", "Remove it");
  add_wait_options(*remove, *wait);
  auto force = std::make_shared<bool>(false);
  remove->add_flag("--force", *force, kForceHelp);
  on_command(*remove, context,
             [=, &context](Session& session) { return delete_vm(context, session, *insid, *wait, *force); });
  auto* console = add("console", "What it printed on its serial console");
  on_command(*console, context, [=, &context](Session& session) -> Result<> {
    auto text = session.get_raw("/vms/" + http::url_encode(*insid) + "/console");
    if (!text) return fail(text.error());
    context.console.result({{"insid", *insid}, {"console", *text}}, *text);
    return {};
  });
  auto* screenshot = add("screenshot", "What its screen shows, as PNG");
  auto out = std::make_shared<std::string>();
  screenshot->add_option("-o,--output", *out, "File (default: VM.png)");
  on_command(*screenshot, context,
             [=, &context](Session& session) { return save_screenshot(context, session, *insid, *out); });
  add_vm_operate_commands(*vm, context);
  add_vm_snapshot_commands(*vm, context);
}

}  // namespace educloud::cli
