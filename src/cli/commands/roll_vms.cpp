#include "cli/commands/roll_vms.hpp"

#include <thread>

#include "cli/commands/wait.hpp"
#include "common/base/clock.hpp"

namespace educloud::cli {
namespace {

using nlohmann::json;

constexpr std::chrono::milliseconds kAgain{1000};
constexpr std::int64_t kPatienceMs = 60'000;  ///< until a node that is back may take a VM

/// The task of a VM if that is on `host`; null if not.
json task_on(const json& vm, const std::string& host) {
  const auto task = vm.is_object() ? vm.find("task") : vm.end();
  if (!vm.is_object() || task == vm.end() || !task->is_object() || task->value("node", "") != host)
    return nullptr;
  return *task;
}

std::string path_of(const std::string& insid) {
  return "/vms/" + http::url_encode(insid);
}

}  // namespace

std::set<std::string> at_work_on(const json& vms, const std::string& host) {
  static const std::set<std::string> kAtWork{"preparing", "booting", "running", "paused", "migrating"};
  std::set<std::string> out;
  for (const auto& vm : vms) {
    if (!task_on(vm, host).is_null() && kAtWork.contains(vm.value("state", "")))
      out.insert(vm.value("insid", ""));
  }
  return out;
}

std::map<std::string, std::string> stopped_by_drain(const json& vms, const std::string& host,
                                                    const std::set<std::string>& of) {
  std::map<std::string, std::string> out;
  for (const auto& vm : vms) {
    const json task = task_on(vm, host);
    if (task.is_null() || task.value("stops_at", std::int64_t{0}) == 0) continue;
    const std::string insid = vm.value("insid", "");
    if (of.contains(insid)) out[insid] = vm.value("name", "");
  }
  return out;
}

Result<> StayingVms::remember() {
  auto vms = session_.list("/vms");
  if (!vms) return fail(vms.error());
  at_work_ = at_work_on(*vms, host_);
  return {};
}

void StayingVms::look() {
  const auto vms = session_.list("/vms");
  if (!vms) return;  // the next look tells
  const auto now = stopped_by_drain(*vms, host_, at_work_);
  std::set<std::string> there;
  for (const auto& vm : *vms) there.insert(vm.value("insid", ""));
  for (const auto& [insid, name] : now) {
    if (staying_.contains(insid)) continue;
    const bool lasts = !insid.starts_with("TVD");
    context_.console.note(host_ + ": " + insid + (name.empty() ? "" : " (" + name + ")") +
                          " does not move: it is stopped" +
                          (lasts ? ", and started again when " + host_ + " is back" : " and gone then"));
  }
  // Those that moved after all, somebody having come back to them, are none of ours any more.
  std::map<std::string, std::string> next = now;
  for (const auto& [insid, name] : staying_) {
    if (insid.starts_with("TVD") && !there.contains(insid)) next[insid] = name;
  }
  staying_ = std::move(next);
}

/// The id of the task that starts it; empty if it runs already.
Result<std::string> StayingVms::run(const std::string& insid) {
  const SystemClock clock;
  const auto deadline_ms = clock.boot_ms() + kPatienceMs;
  for (;;) {
    auto vm = session_.get(path_of(insid));
    if (!vm) return fail(vm.error());
    const std::string state = vm->value("state", "");
    if (state != "stopped" && state != "failed" && state != "defined") return std::string{};
    auto task = session_.post(path_of(insid) + "/run");
    if (task) return task->value("tid", "");
    const auto code = task.error().code;
    // A node that is back has to tell what it has before anything is placed there.
    const bool may_yet =
        code == ErrorCode::exhausted || code == ErrorCode::unavailable || code == ErrorCode::timeout;
    if (!may_yet || clock.boot_ms() >= deadline_ms) return fail(task.error());
    std::this_thread::sleep_for(kAgain);
  }
}

void StayingVms::start(int timeout_s) {
  std::map<std::string, std::string> tasks;
  for (const auto& [insid, name] : staying_) {
    if (insid.starts_with("TVD")) {
      ended_.push_back(insid);
      continue;
    }
    if (auto tid = run(insid)) {
      tasks[insid] = *tid;
    } else {
      refused_.push_back({insid, tid.error().message});
    }
  }
  staying_.clear();
  for (const auto& [insid, tid] : tasks) {
    auto runs =
        tid.empty() ? Result<json>(json()) : wait_for_task(context_, session_, tid, Goal::running, timeout_s);
    if (runs) {
      started_.push_back(insid);
    } else {
      refused_.push_back({insid, runs.error().message});
    }
  }
  for (const auto& one : refused_) context_.console.note(one.insid + " was not started again: " + one.reason);
}

std::string StayingVms::left() const {
  std::string names;
  for (const auto& [insid, name] : staying_) {
    if (!insid.starts_with("TVD")) names += (names.empty() ? "" : ", ") + insid;
  }
  return names.empty() ? "" : "; stopped by the drain and not started again: " + names;
}

}  // namespace educloud::cli
