#include <CLI/CLI.hpp>

#include "cli/commands/context.hpp"
#include "cli/commands/limits.hpp"
#include "cli/commands/vm_view.hpp"
#include "cli/commands/wait.hpp"

namespace educloud::cli {
namespace {

std::string path_of(const std::string& insid) {
  return "/vms/" + http::url_encode(insid);
}

Result<> show(Context& context, Session& session, const std::string& insid) {
  auto vm = session.get(path_of(insid));
  if (!vm) return fail(vm.error());
  add_addresses(*vm);
  context.console.result(*vm, describe_vm(*vm));
  return {};
}

/// "pause", "resume" or "restart", then the VM as it is.
Result<> operate(Context& context, Session& session, const std::string& insid, const std::string& verb,
                 const WaitOptions& wait) {
  auto task = session.post(path_of(insid) + "/" + verb);
  if (!task) return fail(task.error());
  if (wait.wait) {
    auto last = wait_for_operation(context, session, cell(*task, "tid"), "instance/" + verb, wait.timeout_s);
    if (!last) return fail(last.error());
  }
  return show(context, session, insid);
}

Result<> move(Context& context, Session& session, const std::string& insid, const std::string& node,
              const WaitOptions& wait) {
  nlohmann::json body = nlohmann::json::object();
  if (!node.empty()) body["node"] = node;
  auto task = session.post(path_of(insid) + "/migrate", body);
  if (!task) return fail(task.error());
  const std::string from = cell(*task, "node");
  if (wait.wait) {
    auto last = wait_for_task(context, session, cell(*task, "tid"), Goal::settled, wait.timeout_s);
    if (!last) return fail(last.error());
    if (cell(*last, "node") == from)
      return fail(ErrorCode::unavailable, insid + " stays on " + from + ": " + cell(*last, "errormsg"));
  }
  return show(context, session, insid);
}

Result<> limit(Context& context, Session& session, const std::string& insid, const LimitOptions& options,
               const WaitOptions& wait) {
  const auto body = limits_body(options);
  if (body.empty())
    return fail(ErrorCode::invalid_argument, "no limit is given: see educloud vm limit --help");
  auto vm = session.patch(path_of(insid) + "/limits", body);
  if (!vm) return fail(vm.error());
  const auto task = vm->find("task");
  const bool sent = task != vm->end() && task->is_object() && task->value("busy", false);
  if (wait.wait && sent) {
    auto last = wait_for_operation(context, session, cell(*task, "tid"), "instance/limit", wait.timeout_s);
    if (!last) return fail(last.error());
  }
  return show(context, session, insid);
}

}  // namespace

void add_vm_operate_commands(CLI::App& vm, Context& context) {
  auto insid = std::make_shared<std::string>();
  auto wait = std::make_shared<WaitOptions>();
  const auto add = [&](const char* name, const char* about) {
    auto* command = vm.add_subcommand(name, about);
    command->add_option("VM", *insid, "Instance id")->required();
    add_wait_options(*command, *wait);
    return command;
  };
  for (const auto& [verb, about] : std::initializer_list<std::pair<const char*, const char*>>{
           {"pause", "Let it stand still, its memory kept"},
           {"resume", "Let it go on after a pause"},
           {"restart", "Boot it again: in order if the guest does so in time, else hard"}}) {
    on_command(*add(verb, about), context, [=, &context, verb = std::string(verb)](Session& session) {
      return operate(context, session, *insid, verb, *wait);
    });
  }
  auto* moved = add("migrate", "Let it go on on another node, while it runs (administrators)");
  auto node = std::make_shared<std::string>();
  moved->add_option("--to", *node, "Node; else the one of its cluster that fits best");
  on_command(*moved, context,
             [=, &context](Session& session) { return move(context, session, *insid, *node, *wait); });
  auto* limited = add("limit", "What it may take of its node, at once if it runs; 0: what its type says");
  auto options = std::make_shared<LimitOptions>();
  add_limit_options(*limited, *options);
  on_command(*limited, context,
             [=, &context](Session& session) { return limit(context, session, *insid, *options, *wait); });
}

}  // namespace educloud::cli
