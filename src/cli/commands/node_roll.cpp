// `educloud node roll`: nodes, or their daemons, restarted one after the other without losing a VM.
#include <CLI/CLI.hpp>
#include <cstdlib>
#include <set>
#include <thread>

#include "cli/commands/context.hpp"
#include "cli/commands/roll.hpp"
#include "cli/commands/roll_vms.hpp"
#include "cli/commands/wait.hpp"
#include "common/base/clock.hpp"
#include "common/sys/process.hpp"

namespace educloud::cli {

std::set<std::string> vms_of(const nlohmann::json& node) {
  std::set<std::string> out;
  const auto vms = node.find("vms");
  if (vms == node.end() || !vms->is_array()) return out;
  for (const auto& vm : *vms) {
    const std::string state = vm.is_object() ? vm.value("state", "") : "";
    if (state == "running" || state == "paused") out.insert(vm.value("insid", ""));
  }
  return out;
}

bool has_restarted(const nlohmann::json& before, const nlohmann::json& now, bool host) {
  const char* key = host ? "booted_at" : "started_at";
  const bool is_up = now.value("alive", false);
  return is_up && now.value(key, std::int64_t{0}) > before.value(key, std::int64_t{0});
}

std::vector<std::string> missing_vms(const nlohmann::json& before, const nlohmann::json& now) {
  const auto had = vms_of(before), has = vms_of(now);
  std::vector<std::string> out;
  std::set_difference(had.begin(), had.end(), has.begin(), has.end(), std::back_inserter(out));
  return out;
}

bool is_awaited(const nlohmann::json& vm, const std::string& host) {
  const auto task = vm.is_object() ? vm.find("task") : vm.end();
  if (!vm.is_object() || task == vm.end() || !task->is_object()) return false;
  // It ended otherwise than by an order: that is what a roll must not do.
  if (task->value("failed", 0) == 1) return true;
  return task->value("node", "") == host && task->value("phase", "") != "submitting" &&
         task->value("state", "") != "stopped";
}

namespace {

using nlohmann::json;

struct Roll {
  std::vector<std::string> nodes;  ///< in this order
  std::string cluster, program;
  bool reboot = false;
  int timeout_s = 1800;  ///< for each step of a node
};

constexpr std::chrono::milliseconds kLook{500};
constexpr std::int64_t kLookAtVmsMs = 2000;

std::string path_of(const std::string& host) {
  return "/nodes/" + http::url_encode(host);
}

/// Asks for the node until `done` says so. clc may be away for a while: it may be one of what is restarted.
Result<json> wait_for_node(Session& session, const std::string& host, int timeout_s, const std::string& what,
                           const std::function<bool(const json&)>& done) {
  const SystemClock clock;
  const auto deadline_ms = clock.boot_ms() + std::int64_t{timeout_s} * 1000;
  std::string last;
  for (;;) {
    auto node = session.get(path_of(host));
    if (node && done(*node)) return node;
    if (!node && node.error().code != ErrorCode::unavailable && node.error().code != ErrorCode::timeout)
      return node;
    last = node ? "" : " (" + node.error().message + ")";
    if (clock.boot_ms() >= deadline_ms) {
      return fail(ErrorCode::timeout, "node " + host + " " + what + " after " + std::to_string(timeout_s) +
                                          " s" + last + ": look at `educloud node show " + host + "`");
    }
    std::this_thread::sleep_for(kLook);
  }
}

/// What its user has ended meanwhile is not missed.
bool misses_any(Session& session, const std::string& host, const std::vector<std::string>& insids) {
  return std::ranges::any_of(insids, [&](const std::string& insid) {
    auto vm = session.get("/vms/" + http::url_encode(insid));
    return vm ? is_awaited(*vm, host) : vm.error().code != ErrorCode::not_found;
  });
}

Result<> set_state(Session& session, const std::string& host, const std::string& state) {
  auto changed = session.patch(path_of(host), {{"state", state}});
  return changed ? Result<>{} : fail(changed.error());
}

Result<> run_program(const Roll& roll, const std::string& host) {
  sys::ProcessOptions options;
  options.argv = {roll.program, host};
  options.timeout = std::chrono::seconds(roll.timeout_s);
  for (const char* name : {"HOME", "USER", "SSH_AUTH_SOCK"}) {
    if (const char* value = std::getenv(name)) options.environment.push_back(std::string(name) + "=" + value);
  }
  auto done = sys::run(options);
  if (!done) return fail(done.error());
  if (done->exit_code == 0) return {};
  return fail(ErrorCode::conflict, roll.program + " " + host + " ended with " +
                                       std::to_string(done->exit_code) + ": " + done->err.substr(0, 500));
}

/// The nodes it is about, all of them up: one that is missing already would be the second.
Result<std::vector<json>> choose(Session& session, const Roll& roll) {
  auto all = session.list("/nodes");
  if (!all) return fail(all.error());
  std::vector<json> chosen;
  std::set<std::string> wanted(roll.nodes.begin(), roll.nodes.end());
  for (const auto& node : *all) {
    const std::string host = node.value("host", "");
    const bool named = wanted.erase(host) > 0;
    const bool of_cluster = roll.cluster.empty() || node.value("cluster", "") == roll.cluster;
    if (!named && (!roll.nodes.empty() || !of_cluster || !node.value("registered", false))) continue;
    if (!node.value("alive", false)) {
      return fail(ErrorCode::conflict,
                  "node " + host + " is not up: mend it first, or name the nodes that are to be restarted");
    }
    chosen.push_back(node);
  }
  if (!wanted.empty()) return fail(ErrorCode::not_found, "there is no node " + *wanted.begin(), "NODE");
  if (chosen.empty()) return fail(ErrorCode::not_found, "there is no node to restart");
  std::sort(chosen.begin(), chosen.end(),
            [](const json& a, const json& b) { return a.value("host", "") < b.value("host", ""); });
  return chosen;
}

Result<> empty_node(Context& context, Session& session, const Roll& roll, const std::string& host,
                    StayingVms& staying) {
  if (auto ok = staying.remember(); !ok) return ok;
  if (auto ok = set_state(session, host, "drained"); !ok) return ok;
  const SystemClock clock;
  const auto drained_ms = clock.boot_ms();
  auto looked_ms = drained_ms;
  std::set<std::string> left;
  auto empty = wait_for_node(session, host, roll.timeout_s, "still has VMs", [&](const json& node) {
    auto now = vms_of(node);
    if (now != left && !now.empty())
      context.console.note(host + ": " + std::to_string(now.size()) + " VMs are to leave");
    left = std::move(now);
    if (clock.boot_ms() - looked_ms >= kLookAtVmsMs) {
      staying.look();
      looked_ms = clock.boot_ms();
    }
    // What it told before it was drained says nothing of what was on its way to it.
    const bool is_fresh = node.value("age_ms", std::int64_t{-1}) >= 0 &&
                          node.value("age_ms", std::int64_t{0}) < clock.boot_ms() - drained_ms;
    return is_fresh && left.empty() && node.value("committed_mib", std::int64_t{0}) == 0;
  });
  staying.look();
  if (empty) return {};
  std::string names;
  for (const auto& one : left) names += (names.empty() ? "" : ", ") + one;
  return fail(empty.error().code,
              empty.error().message + "; left: " + names + " (an edited image waits for submit or cancel)");
}

Result<> roll_node(Context& context, Session& session, const Roll& roll, const json& before,
                   StayingVms& staying) {
  const std::string host = before.value("host", "");
  const std::string state = before.value("admin_state", "enabled");
  if (roll.reboot) {
    if (auto ok = empty_node(context, session, roll, host, staying); !ok) return ok;
  }
  // As it is now: what VMs are to be there after, and which start counts as a later one.
  auto now = session.get(path_of(host));
  if (!now) return fail(now.error());
  context.console.note(host + ": " + roll.program);
  if (auto ok = run_program(roll, host); !ok) return ok;
  auto after = wait_for_node(session, host, roll.timeout_s, "is not back",
                             [&](const json& node) { return has_restarted(*now, node, roll.reboot); });
  if (!after) return fail(after.error());
  if (!roll.reboot) {
    auto whole =
        wait_for_node(session, host, roll.timeout_s, "does not have all of its VMs",
                      [&](const json& node) { return !misses_any(session, host, missing_vms(*now, node)); });
    if (!whole) return fail(whole.error());
  } else if (auto ok = set_state(session, host, state); !ok) {
    return ok;
  }
  staying.start(roll.timeout_s);
  context.console.note(host + ": back");
  return {};
}

Result<> roll_nodes(Context& context, Session& session, const Roll& roll) {
  auto nodes = choose(session, roll);
  if (!nodes) return fail(nodes.error());
  json done = json::array(), started = json::array(), ended = json::array(), refused = json::array();
  for (const auto& node : *nodes) {
    const std::string host = node.value("host", "");
    StayingVms staying(context, session, host);
    auto ok = roll_node(context, session, roll, node, staying);
    if (!ok) {
      const std::string left =
          roll.reboot ? "; it stays drained until `educloud node enable " + host + "`" + staying.left() : "";
      return fail(ok.error().code, ok.error().message + left + ". Restarted before it: " +
                                       std::to_string(done.size()) + " of " + std::to_string(nodes->size()));
    }
    done.push_back(host);
    for (const auto& insid : staying.started()) started.push_back(insid);
    for (const auto& insid : staying.ended()) ended.push_back(insid);
    for (const auto& one : staying.refused())
      refused.push_back({{"insid", one.insid}, {"reason", one.reason}});
  }
  std::string text = std::to_string(done.size()) + " nodes restarted";
  if (!started.empty()) text += ", " + std::to_string(started.size()) + " VMs started again";
  if (!ended.empty()) text += ", " + std::to_string(ended.size()) + " temporary desktops ended";
  text += "\n";
  for (const auto& one : refused) {
    text += one.value("insid", "") + " was not started again: " + one.value("reason", "") + "\n";
    context.exit_code = ExitCode::task_failed;
  }
  context.console.result(
      {{"restarted", done}, {"started", started}, {"ended", ended}, {"not_started", refused}}, text);
  return {};
}

}  // namespace

void add_node_roll_command(CLI::App& node, Context& context) {
  auto* command = node.add_subcommand("roll", "Restart nodes, or their daemons, one after the other");
  auto roll = std::make_shared<Roll>();
  command->add_option("NODE", roll->nodes, "Which ones; default: all");
  command->add_option("--cluster", roll->cluster, "Only those of this cluster");
  command->add_option("--run", roll->program, "Program that restarts the node it is given as its argument")
      ->required();
  command->add_flag("--reboot", roll->reboot,
                    "The whole host: its VMs move away before, or are stopped, and started again after. "
                    "Default: its daemon, "
                    "the VMs run on");
  command->add_option("--timeout", roll->timeout_s, "Seconds for each step of a node")
      ->check(CLI::Range(1, 86400));
  on_command(*command, context,
             [&context, roll](Session& session) { return roll_nodes(context, session, *roll); });
}

}  // namespace educloud::cli
