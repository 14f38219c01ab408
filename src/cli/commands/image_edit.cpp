#include <CLI/CLI.hpp>

#include "cli/commands/context.hpp"
#include "cli/commands/vm_view.hpp"
#include "cli/commands/wait.hpp"
#include "common/base/ids.hpp"

namespace educloud::cli {
namespace {

struct EditArguments {
  std::string imgid, name, vmtype, cluster, node, description;
  std::int64_t memory_mib = 0;
  int cpus = 0, version = 0;
  bool wait_running = false;
  WaitOptions wait;
};

nlohmann::json edit_body(const EditArguments& a) {
  auto body = nlohmann::json::object();
  const std::pair<const char*, const std::string*> texts[] = {{"name", &a.name},
                                                              {"vmtype", &a.vmtype},
                                                              {"cluster", &a.cluster},
                                                              {"node", &a.node},
                                                              {"description", &a.description}};
  for (const auto& [key, value] : texts) {
    if (!value->empty()) body[key] = *value;
  }
  if (a.memory_mib > 0) body["memory_mib"] = a.memory_mib;
  if (a.cpus > 0) body["cpus"] = a.cpus;
  if (a.version > 0) body["version"] = a.version;
  return body;
}

std::string insid_of(const std::string& tid) {
  auto parsed = TaskId::parse(tid);
  return parsed ? parsed->instance.str() : std::string();
}

/// The task that edits; with --wait until its VM runs, and then where its screen is.
Result<> edit_image(Context& context, Session& session, const std::string& verb, const EditArguments& a) {
  auto task = session.post("/images/" + http::url_encode(a.imgid) + "/" + verb, edit_body(a));
  if (!task) return fail(task.error());
  const std::string tid = cell(*task, "tid");
  if (a.wait.wait || a.wait_running) {
    task = wait_for_task(context, session, tid, Goal::running, a.wait.timeout_s);
    if (!task) return fail(task.error());
  }
  std::string text = describe_task(*task);
  const std::string insid = insid_of(tid);
  auto vm = session.get("/vms/" + http::url_encode(insid));
  if (vm) {
    add_addresses(*vm);
    for (const char* key : {"display_address", "display_password", "web_url"}) (*task)[key] = (*vm)[key];
    text += describe_vm(*vm);
  }
  (*task)["insid"] = insid;
  text += "When it is as it should be: educloud vm stop " + insid + " --wait; educloud image submit " + tid +
          " --wait\n";
  context.console.result(*task, text);
  return {};
}

/// A task's id as it is; of an instance, the task that is open on it.
Result<std::string> tid_of(Session& session, const std::string& text) {
  if (TaskId::parse(text)) return text;
  if (!InstanceId::parse(text)) {
    return fail(ErrorCode::invalid_argument,
                "'" + text.substr(0, 80) + "' is neither a task id (IMG..:IMG..:TMP..) nor an instance id");
  }
  auto tasks = session.list("/tasks?open=true&insid=" + http::url_encode(text));
  if (!tasks) return fail(tasks.error());
  if (tasks->empty()) return fail(ErrorCode::not_found, "instance " + text + " has no open task");
  return cell(tasks->front(), "tid");
}

void add_edit_command(CLI::App& image, Context& context, const std::string& verb, const std::string& about,
                      bool needs_name) {
  auto* command = image.add_subcommand(verb, about);
  auto arguments = std::make_shared<EditArguments>();
  auto& a = *arguments;
  command->add_option("IMAGE", a.imgid, "Image id")->required();
  if (needs_name) command->add_option("--name", a.name, "Name of the new image")->required();
  command->add_option("--type", a.vmtype, "VM type (GET /vmtypes)");
  command->add_option("--memory-mib", a.memory_mib, "Memory instead of the type's")
      ->check(CLI::Range(16, 4'000'000));
  command->add_option("--cpus", a.cpus, "CPUs instead of the type's")->check(CLI::Range(1, 256));
  command->add_option("--cluster", a.cluster, "Only there");
  command->add_option("--node", a.node, "Only there");
  command->add_option("--version", a.version, "Start from this version, not the one in use")
      ->check(CLI::PositiveNumber);
  command->add_option("--description", a.description, "For people");
  command->add_flag("--wait-running", a.wait_running, "The same as --wait: until the VM runs");
  add_wait_options(*command, a.wait);
  on_command(*command, context, [&context, arguments, verb](Session& session) {
    return edit_image(context, session, verb, *arguments);
  });
}

}  // namespace

void add_image_edit_commands(CLI::App& image, Context& context) {
  add_edit_command(image, context, "modify", "Run the image itself, to change it into a new version", false);
  add_edit_command(image, context, "build", "Run a copy of the image, to make a new image of it", true);

  auto* submit =
      image.add_subcommand("submit", "Make what was changed a new version; its VM must be stopped");
  auto which = std::make_shared<std::string>();
  auto wait = std::make_shared<WaitOptions>();
  submit->add_option("TASK", *which, "Task id or instance id of the modify or build")->required();
  auto on_conflict = std::make_shared<std::string>();
  add_conflict_option(*submit, *on_conflict);
  add_wait_options(*submit, *wait);
  on_command(*submit, context, [=, &context](Session& session) -> Result<> {
    auto tid = tid_of(session, *which);
    if (!tid) return fail(tid.error());
    auto task = session.post("/tasks/" + http::url_encode(*tid) + "/submit", submit_body(*on_conflict));
    if (!task) return fail(task.error());
    return report_task(context, session, std::move(*task), Goal::ended, *wait);
  });
}

}  // namespace educloud::cli
