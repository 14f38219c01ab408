#include <CLI/CLI.hpp>

#include "cli/commands/context.hpp"
#include "cli/commands/wait.hpp"
#include "cli/core/text.hpp"

namespace educloud::cli {
namespace {

struct Arguments {
  std::string insid, snapid, name;
  bool memory = false;
  WaitOptions wait;
};

std::string path_of(const Arguments& a) {
  return "/vms/" + http::url_encode(a.insid) + "/snapshots";
}

std::string path_of_one(const Arguments& a) {
  return path_of(a) + "/" + http::url_encode(a.snapid);
}

std::string describe(const nlohmann::json& snapshot) {
  std::vector<std::vector<std::string>> rows;
  for (const char* key : {"snapid", "insid", "name", "state", "memory", "node", "error"}) {
    const std::string value = cell(snapshot, key);
    if (value != "-") rows.push_back({key, value});
  }
  return render_table(rows);
}

Result<> list(Context& context, Session& session, const Arguments& a) {
  auto all = session.list(path_of(a));
  if (!all) return fail(all.error());
  std::vector<std::vector<std::string>> rows = {{"SNAPSHOT", "NAME", "STATE", "MEMORY", "MADE", "ERROR"}};
  for (const auto& one : *all) {
    rows.push_back({cell(one, "snapid"), cell(one, "name"), cell(one, "state"), cell(one, "memory"),
                    format_time(one.value("created_at", std::int64_t{0})), cell(one, "error")});
  }
  context.console.result({{"items", *all}}, render_table(rows));
  return {};
}

Result<> take(Context& context, Session& session, const Arguments& a) {
  nlohmann::json body = {{"memory", a.memory}};
  if (!a.name.empty()) body["name"] = a.name;
  auto made = session.post(path_of(a), body);
  if (!made) return fail(made.error());
  if (a.wait.wait) {
    auto last = wait_for_operation(context, session, cell(*made, "tid"), "snapshot/take", a.wait.timeout_s);
    if (!last) return fail(last.error());
    auto all = session.list(path_of(a));
    if (!all) return fail(all.error());
    for (const auto& one : *all) {
      if (one.value("snapid", "") == made->value("snapid", "-")) *made = one;
    }
  }
  context.console.result(*made, describe(*made));
  return {};
}

Result<> restore(Context& context, Session& session, const Arguments& a) {
  auto task = session.post(path_of_one(a) + "/restore");
  if (!task) return fail(task.error());
  if (a.wait.wait) {
    auto last =
        wait_for_operation(context, session, cell(*task, "tid"), "snapshot/restore", a.wait.timeout_s);
    if (!last) return fail(last.error());
    *task = std::move(*last);
  }
  context.console.result(*task, describe_task(*task));
  return {};
}

Result<> remove(Context& context, Session& session, const Arguments& a) {
  auto gone = session.remove(path_of_one(a));
  if (!gone) return fail(gone.error());
  if (a.wait.wait && gone->value("state", "") == "deleting") {
    auto last = wait_for_operation(context, session, cell(*gone, "tid"), "snapshot/delete", a.wait.timeout_s);
    if (!last) return fail(last.error());
    (*gone)["state"] = "deleted";
  }
  context.console.result(
      *gone, a.snapid + (gone->value("state", "") == "deleted" ? " deleted" : " is being deleted"));
  return {};
}

}  // namespace

void add_vm_snapshot_commands(CLI::App& vm, Context& context) {
  auto* snapshot = vm.add_subcommand("snapshot", "Moments of its disk to come back to");
  snapshot->require_subcommand(1);
  auto a = std::make_shared<Arguments>();
  const auto add = [&](const char* name, const char* about,
                       Result<> (*action)(Context&, Session&, const Arguments&), bool of_one) {
    auto* command = snapshot->add_subcommand(name, about);
    command->add_option("VM", a->insid, "Instance id")->required();
    if (of_one) command->add_option("SNAPSHOT", a->snapid, "Snapshot id")->required();
    on_command(*command, context, [=, &context](Session& session) { return action(context, session, *a); });
    return command;
  };
  auto* taken = add("take", "Keep its disk as it is now", take, false);
  taken->add_option("--name", a->name, "Name, for people");
  taken->add_flag("--memory", a->memory, "The guest's memory too: restored, it goes on where it was");
  add_wait_options(*taken, a->wait);
  add("list", "Its snapshots, oldest first", list, false);
  add_wait_options(*add("restore", "Go back to it; what came after is lost", restore, true), a->wait);
  add_wait_options(*add("delete", "Forget it", remove, true), a->wait);
}

}  // namespace educloud::cli
