#include "clc/domain/reconcile.hpp"

#include <algorithm>
#include <optional>
#include <set>
#include <tuple>

#include "clc/domain/task_rules.hpp"
#include "common/base/ids.hpp"

namespace educloud::clc {
namespace {

using task::Phase;
using task::State;

constexpr task::TaskState kRunning{Phase::editing, State::running};
constexpr task::TaskState kPaused{Phase::editing, State::paused};
constexpr task::TaskState kStopped{Phase::editing, State::stopped};

/// Commands of one task between a backup of our database and now, by far.
constexpr std::int64_t kAheadMost = 1'000'000;

bool is_up(const msg::InventoryVm& vm) {
  return vm.state != "shutoff";
}

/// The round, by task.
class View {
 public:
  explicit View(const Holdings& holdings) {
    for (const auto& one : holdings.tasks) tasks_[one.tid] = &one;
    for (const auto& one : holdings.vms) {
      if (is_up(one)) up_.insert(one.tid);
    }
  }
  const msg::InventoryTask* task(const std::string& tid) const {
    const auto at = tasks_.find(tid);
    return at == tasks_.end() ? nullptr : at->second;
  }
  bool is_up(const std::string& tid) const { return up_.contains(tid); }

 private:
  static bool is_up(const msg::InventoryVm& vm) { return clc::is_up(vm); }
  std::map<std::string, const msg::InventoryTask*> tasks_;
  std::set<std::string> up_;
};

Fix make_fix(Fix::Kind kind, const Task& task, std::string why) {
  Fix fix;
  fix.kind = kind;
  fix.tid = task.tid;
  fix.insid = task.insid;
  fix.why = std::move(why);
  return fix;
}

/// A clock that was set back says nothing about how long ago it was.
bool is_younger(std::int64_t at_ms, std::int64_t age_ms, std::int64_t now_ms) {
  return now_ms >= at_ms && now_ms - at_ms < age_ms;
}

/// A node that makes up numbers must not use up those that are left.
bool is_credible(const msg::InventoryTask& told, const Task& task) {
  return told.epoch - task.epoch <= kAheadMost && told.attempt - task.attempt <= kAheadMost;
}

/// Above everything the node has of `vm`, which may be no more than the name of one.
Fix farewell_to(const msg::InventoryVm& vm, const View& view, const Task* task, std::string why) {
  Fix fix;
  fix.kind = Fix::Kind::farewell;
  fix.tid = vm.tid;
  fix.insid = vm.insid;
  fix.why = std::move(why);
  const auto* told = view.task(vm.tid);
  fix.epoch = std::max({vm.epoch, told ? told->epoch : 0, task ? task->epoch : 0});
  fix.attempt = std::max(told ? told->attempt : 0, task ? task->attempt : 0) + 1;
  return fix;
}

/// A task that is on the node as we believe.
std::optional<Fix> look_at_task(const Task& task, const View& view, std::int64_t now_ms) {
  if (is_walrus_task(task.kind) || task.cmdid.empty()) return std::nullopt;
  if (is_younger(std::max(task.cmd_sent_at, task.updated_at), kUnsettledMs, now_ms)) return std::nullopt;
  const bool is_here = task.state == kRunning || task.state == kPaused;
  const bool vm_is_missing = is_here && !task.op_open && !view.is_up(task.tid);
  const auto* told = view.task(task.tid);
  if (told == nullptr) {
    if (task.op_open) return make_fix(Fix::Kind::resend, task, "the node does not have its command");
    // A node that knows the command does not answer to it once the task was deleted there: after the backup,
    // say, that we were restored from.
    if (vm_is_missing && task.resends > 0)
      return make_fix(Fix::Kind::end, task, "its VM is missing, and its node knows nothing of it");
    if (vm_is_missing) return make_fix(Fix::Kind::resend, task, "its VM is missing");
    return std::nullopt;
  }
  if (told->cmdid == task.cmdid) {
    if (told->finished == 1 && task.op_open)
      return make_fix(Fix::Kind::resend, task, "the node has answered and we do not know it");
    if (told->finished == 1 && vm_is_missing) return make_fix(Fix::Kind::resend, task, "its VM is missing");
    return std::nullopt;
  }
  const auto theirs = std::tuple(told->epoch, told->attempt);
  const auto ours = std::tuple(task.epoch, task.attempt);
  if (theirs > ours) {
    if (told->op == "task/delete") return std::nullopt;  // it is going; then the node has nothing
    if (!is_credible(*told, task)) {
      msg::InventoryVm name;
      name.insid = task.insid;
      name.tid = task.tid;
      Fix fix = farewell_to(name, view, &task, "the node tells of a command that cannot have been");
      fix.kind = Fix::Kind::orphan;
      return fix;
    }
    Fix fix = make_fix(Fix::Kind::adopt, task, "the node has a later command than we know of");
    fix.told = *told;
    return fix;
  }
  if (task.op_open || vm_is_missing)
    return make_fix(Fix::Kind::resend, task, "the node is at an older command");
  return std::nullopt;
}

/// A VM of a task that is on another node.
Fix look_at_stranger(const msg::InventoryVm& vm, const Holdings& holdings, const Knowledge& knowledge,
                     const View& view, const Task& task) {
  Fix fix = farewell_to(vm, view, &task, "its task is on node " + task.node);
  const auto* told = view.task(vm.tid);
  if (!is_up(vm) || std::max(vm.epoch, told ? told->epoch : 0) <= task.epoch) return fix;
  fix.kind = Fix::Kind::orphan;
  const bool can_tell =
      told && told->epoch > task.epoch && told->op != "task/delete" && state_before(told->op);
  if (!can_tell || !is_credible(*told, task) || task.cluster != holdings.cluster ||
      !knowledge.let_go.contains(vm.tid))
    return fix;
  fix.kind = Fix::Kind::adopt;
  fix.why = "it is a later run, and node " + task.node + " has let it go";
  fix.told = *told;
  return fix;
}

/// A VM, or what is left of one, that is on the node.
std::optional<Fix> look_at_vm(const msg::InventoryVm& vm, const Holdings& holdings,
                              const Knowledge& knowledge, const View& view, std::int64_t now_ms) {
  const auto tid = TaskId::parse(vm.tid);
  if (!tid || tid->instance.str() != vm.insid) {
    Fix fix;
    fix.kind = Fix::Kind::stray;
    fix.insid = vm.insid;
    fix.why = "it names no task";
    return fix;
  }
  const auto at = knowledge.by_tid.find(vm.tid);
  if (at == knowledge.by_tid.end()) {
    Fix fix = farewell_to(vm, view, nullptr, "its task was never known here");
    fix.kind = is_up(vm) ? Fix::Kind::orphan : Fix::Kind::stray;
    return fix;
  }
  const Task& task = at->second;
  if (is_younger(task.updated_at, kUnsettledMs, now_ms)) return std::nullopt;
  if (task.state.state == State::gone) return farewell_to(vm, view, &task, "its task has ended");
  // It is on its way, and the node it goes to holds it already.
  if (task.op_open && task.op == "instance/migrate") return std::nullopt;
  if (task.node != holdings.host || task.cluster != holdings.cluster)
    return look_at_stranger(vm, holdings, knowledge, view, task);
  const bool is_stray = is_up(vm) && task.state == kStopped && !task.op_open;
  if (is_stray && !is_younger(task.updated_at, kOrphanMs, now_ms))
    return make_fix(Fix::Kind::stop, task, "its task is stopped");
  return std::nullopt;
}

/// A task without a VM that the node remembers, and may hold files for: its farewell was lost.
std::optional<Fix> look_at_leftover(const msg::InventoryTask& told, const Holdings& holdings,
                                    const Knowledge& knowledge, const View& view, std::int64_t now_ms) {
  if (told.op == "task/delete") return std::nullopt;
  const auto tid = TaskId::parse(told.tid);
  const auto at = knowledge.by_tid.find(told.tid);
  if (!tid || at == knowledge.by_tid.end()) return std::nullopt;
  const Task& task = at->second;
  if (is_younger(task.updated_at, kUnsettledMs, now_ms)) return std::nullopt;
  const bool has_ended = task.state.state == State::gone;
  if (!has_ended && task.node == holdings.host && task.cluster == holdings.cluster) return std::nullopt;
  msg::InventoryVm name;
  name.insid = tid->instance.str();
  name.tid = told.tid;
  return farewell_to(name, view, &task,
                     has_ended ? "its task has ended" : "its task is on node " + task.node);
}

}  // namespace

std::string_view to_string(Fix::Kind kind) {
  switch (kind) {
    case Fix::Kind::resend: return "resend";
    case Fix::Kind::adopt: return "adopt";
    case Fix::Kind::stop: return "stop";
    case Fix::Kind::end: return "end";
    case Fix::Kind::farewell: return "farewell";
    case Fix::Kind::orphan: return "orphan";
    case Fix::Kind::stray: return "stray";
  }
  return "stray";
}

std::vector<Fix> reconcile(const Holdings& holdings, const Knowledge& knowledge, std::int64_t now_ms) {
  const View view(holdings);
  std::vector<Fix> out;
  std::set<std::string> mended;
  for (const auto& task : knowledge.here) {
    auto fix = look_at_task(task, view, now_ms);
    if (!fix) continue;
    mended.insert(fix->tid);
    out.push_back(std::move(*fix));
  }
  for (const auto& vm : holdings.vms) {
    if (mended.contains(vm.tid)) continue;
    auto fix = look_at_vm(vm, holdings, knowledge, view, now_ms);
    if (!fix) continue;
    mended.insert(fix->tid);
    out.push_back(std::move(*fix));
  }
  for (const auto& told : holdings.tasks) {
    if (mended.contains(told.tid)) continue;
    auto fix = look_at_leftover(told, holdings, knowledge, view, now_ms);
    if (fix) out.push_back(std::move(*fix));
  }
  return out;
}

std::set<std::string> let_go(const Holdings& holdings, const Knowledge& knowledge, std::int64_t now_ms) {
  const View view(holdings);
  std::set<std::string> out;
  for (const auto& task : knowledge.here) {
    const bool should_run = (task.state == kRunning || task.state == kPaused) && !task.op_open;
    if (should_run && !is_younger(task.updated_at, kUnsettledMs, now_ms) && !view.is_up(task.tid) &&
        view.task(task.tid) == nullptr)
      out.insert(task.tid);
  }
  return out;
}

Result<task::TaskState> state_before(std::string_view op) {
  if (op == "image/prepare") return task::TaskState{Phase::preparing, State::init};
  if (op == "image/run") return task::TaskState{Phase::preparing, State::done};
  if (op == "image/stop" || is_operation(op)) return kRunning;
  if (op == "image/submit") return task::TaskState{Phase::submitting, State::init};
  if (op == "task/delete") return task::TaskState{Phase::editing, State::deleting};
  return fail(ErrorCode::invalid_argument, "op '" + std::string(op) + "' is not for nodes", "op");
}

}  // namespace educloud::clc
