// instance/pause, resume, restart and limit, and VMs that somebody else paused or let go on.
#include "common/obs/log.hpp"
#include "nc/app/operations.hpp"

namespace educloud::nc {

using task::Event;
using task::Phase;
using task::State;

namespace {

constexpr task::TaskState kRunning{Phase::editing, State::running};
constexpr task::TaskState kPaused{Phase::editing, State::paused};
constexpr task::TaskState kStopped{Phase::editing, State::stopped};
constexpr std::chrono::milliseconds kLook{500};  ///< how often a VM that restarts is looked at

Event event_of(VmState state) {
  return state == VmState::paused ? Event::paused : Event::running;
}

task::TaskState place_of(VmState state) {
  return state == VmState::paused ? kPaused : kRunning;
}

}  // namespace

Operations::Final Operations::operate(const Call& call) {
  const std::string& op = call.command.op;
  // It stands still here, and may run there: to touch it would make two of it.
  if (op != "instance/migrate" && is_handed_over(call.tid.instance) && hypervisor_.state(call.tid.instance))
    return fail(ErrorCode::conflict, "another node may have the VM: stop it, and start it again");
  Final done = fail(ErrorCode::invalid_argument, "this node does not know op '" + op + "'", "op");
  if (op == "instance/pause") done = pause_vm(call);
  if (op == "instance/resume") done = resume_vm(call);
  if (op == "instance/restart") done = restart_vm(call);
  if (op == "instance/limit") done = limit_vm(call);
  if (op == "instance/migrate") done = move_vm(call);
  if (op.starts_with("snapshot/")) return on_snapshot(call);
  if (done || done.error().code == ErrorCode::cancelled) return done;
  // Not what another node or the cc could not find, but the VM.
  const auto state = state_of(call);
  const bool is_gone = !state && state.error().code == ErrorCode::not_found;
  if (is_gone && !is_handed_over(call.tid.instance)) {
    if (auto ok = return_copy(call, std::pair(Event::running, kRunning)); !ok) return fail(ok.error());
    return gone_report(call);
  }
  if (done.error().code == ErrorCode::not_found) return fail(ErrorCode::unavailable, done.error().message);
  return done;
}

inbox::Report Operations::gone_report(const Call& call) {
  // It ended while the command was on its way, which hid the news of it: the operation tells it instead.
  const std::string& op = call.command.op;
  obs::info("vm.ended", {{"tid", call.tid.str()}, {"op", op}});
  const bool has_database = has_open_database(call.tid.instance);
  close_database(call);
  if (auto ok = drop_overlay(call.tid.instance); !ok) {
    obs::warn("overlay.not_removed", {{"tid", call.tid.str()}, {"reason", ok.error().message}});
  }
  auto report = final_report(call, Event::failed, kStopped, op + " failed");
  report.error = Error{ErrorCode::not_found, "the VM does not run any more; start it again", {}};
  // While it moves, or after a restore told that it is down, clc does not take that from us.
  const bool may_be_lost = has_database && op != "instance/migrate" && op != "snapshot/restore";
  if (may_be_lost && options_.was_fenced && options_.was_fenced(call.tid.instance)) {
    report.event = Event::lost;
    report.error = Error{ErrorCode::unavailable,
                         "this node had heard nothing of clc for 45 s and ended it: start it again",
                         {}};
  }
  return report;
}

Operations::Final Operations::pause_vm(const Call& call) {
  if (auto state = state_of(call); !state) return fail(state.error());
  if (auto ok = hypervisor_.pause(call.tid.instance); !ok) return fail(ok.error());
  return final_report(call, Event::paused, kPaused, "the VM is paused");
}

Operations::Final Operations::resume_vm(const Call& call) {
  if (auto state = state_of(call); !state) return fail(state.error());
  if (is_handed_over(call.tid.instance))
    return fail(ErrorCode::conflict, "another node may have the VM: stop it, and start it again");
  if (auto ok = hypervisor_.resume(call.tid.instance); !ok) return fail(ok.error());
  return final_report(call, Event::running, kRunning, "the VM runs");
}

void Operations::rebooted(const std::string& insid) {
  const std::lock_guard lock(reboot_mutex_);
  const auto waited = reboots_.find(insid);
  if (waited == reboots_.end()) return;
  ++waited->second;
  rebooted_.notify_all();
}

Result<bool> Operations::restarts(const Call& call, std::chrono::milliseconds grace) {
  const auto& insid = call.tid.instance;
  const auto deadline = std::chrono::steady_clock::now() + grace;
  for (;;) {
    {
      std::unique_lock lock(reboot_mutex_);
      const auto wake = std::min(deadline, std::chrono::steady_clock::now() + kLook);
      if (rebooted_.wait_until(lock, call.stop, wake, [&] { return reboots_[insid.str()] > 0; })) return true;
    }
    if (call.stop.stop_requested()) return fail(ErrorCode::cancelled, "interrupted");
    if (auto state = hypervisor_.state(insid); !state && state.error().code == ErrorCode::not_found)
      return fail(state.error());
    if (std::chrono::steady_clock::now() >= deadline) return false;
  }
}

Operations::Final Operations::restart_vm(const Call& call) {
  const auto& insid = call.tid.instance;
  auto state = state_of(call);
  if (!state) return fail(state.error());
  if (*state == VmState::paused) {
    // It cannot feel the button, and what it held in memory is to go anyway.
    if (auto ok = hypervisor_.reset(insid); !ok) return fail(ok.error());
    if (auto ok = hypervisor_.resume(insid); !ok) return fail(ok.error());
    return final_report(call, Event::running, kRunning, "the VM was paused: it was reset and runs");
  }
  {
    const std::lock_guard lock(reboot_mutex_);
    reboots_[insid.str()] = 0;
  }
  progress(call, Event::running, kRunning, 0, 0, 0, "the guest is asked to restart");
  // One that does not take the order gets no time for it.
  const bool asked = hypervisor_.reboot(insid).has_value();
  auto seen = restarts(call, asked ? options_.stop_grace : std::chrono::milliseconds{0});
  {
    const std::lock_guard lock(reboot_mutex_);
    reboots_.erase(insid.str());
  }
  if (!seen) return fail(seen.error());
  if (*seen) return final_report(call, Event::running, kRunning, "the guest restarted");
  if (auto ok = hypervisor_.reset(insid); !ok) return fail(ok.error());
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(options_.stop_grace).count();
  return final_report(call, Event::running, kRunning,
                      "the guest did not restart within " + std::to_string(seconds) + " s and was reset");
}

std::string Operations::limit_network(const Call& call, const msg::Limits& limits) {
  auto limited = networks_.limit(call.tid.instance, limits.net_mbit_s);
  if (limited) return {};
  obs::warn("net.not_limited", {{"tid", call.tid.str()}, {"reason", limited.error().message}});
  return "; its network rate does not hold yet: " + limited.error().message;
}

Operations::Final Operations::limit_vm(const Call& call) {
  if (!call.command.limits)
    return fail(ErrorCode::invalid_argument, "instance/limit without limits", "limits");
  auto state = state_of(call);
  if (!state) return fail(state.error());
  if (auto ok = hypervisor_.set_limits(call.tid.instance, *call.command.limits); !ok) return fail(ok.error());
  return final_report(call, event_of(*state), place_of(*state),
                      "the limits hold" + limit_network(call, *call.command.limits));
}

/// Of the VM that runs, as its guest sees it; 0: it does not run.
Result<std::uint64_t> Operations::memory_of(const InstanceId& insid) {
  auto vm = find_vm(insid);
  if (!vm) return fail(vm.error());
  return *vm ? static_cast<std::uint64_t>((*vm)->memory_mib) << 20 : 0;
}

Operations::Final Operations::on_snapshot(const Call& call) {
  const auto& command = call.command;
  const auto& insid = call.tid.instance;
  if (auto ok = check_snapshot_name(command.snapshot); !ok) return fail(ok.error());
  auto before = state_of(call);
  if (!before && before.error().code != ErrorCode::not_found) return fail(before.error());
  const bool was_up = before.has_value() || snapshots_.is_between(insid);
  const auto give_back = [&]() { return return_copy(call, std::pair(Event::running, kRunning)); };
  // It ended, and this command hid the news of it, or ended it and was put off.
  if (!was_up && has_newer_copy(insid)) {
    if (auto ok = give_back(); !ok) return fail(ok.error());
    close_database(call);
  }
  const bool has_database = has_open_database(insid);
  if (has_database && command.op == "snapshot/take" && command.with_memory == 1) {
    return fail(ErrorCode::conflict,
                "a memory would not fit to its database disk d:, which goes on: take the snapshot without");
  }
  Result<SnapshotDone> done = fail(ErrorCode::invalid_argument, "no op '" + command.op + "'", "op");
  if (command.op == "snapshot/take") {
    auto bytes = command.with_memory == 1 ? memory_of(insid) : Result<std::uint64_t>(0);
    if (!bytes) return fail(bytes.error());
    if (auto ok = need_disk(*bytes, "a snapshot"); !ok) return fail(ok.error());
    done = snapshots_.take(insid, command.snapshot, command.with_memory == 1, call.stop);
  }
  if (command.op == "snapshot/restore") {
    progress(call, before ? event_of(*before) : Event::stopped, before ? place_of(*before) : kStopped, 0, 0,
             0, "restoring " + command.snapshot);
    if (auto ok = before ? Result<>{} : may_start(call); was_up && !ok) return fail(ok.error());
    if (auto ok = renew_disk_secret(insid); !ok) return fail(ok.error());
    done = snapshots_.restore(insid, command.snapshot, call.stop);
  }
  if (command.op == "snapshot/delete") done = snapshots_.remove(insid, command.snapshot);
  if (!done) {
    if (done.error().code == ErrorCode::cancelled) return fail(done.error());
    auto now = state_of(call);
    if (now || now.error().code != ErrorCode::not_found || !was_up) return fail(done.error());
    if (auto ok = give_back(); !ok) return fail(ok.error());
    auto report = gone_report(call);
    report.error->message = done.error().message + "; " + report.error->message;
    return report;
  }
  if (has_database && command.op == "snapshot/take") done->prompt += "; of c: only, not of the database disk";
  if (has_database && command.op == "snapshot/restore") done->prompt += "; the database disk stays as it is";
  const auto& state = done->state;
  auto report = final_report(call, state ? event_of(*state) : Event::stopped,
                             state ? place_of(*state) : kStopped, done->prompt);
  report.snapshot = done->snapshot;
  return report;
}

void Operations::vm_changed(const Job& job) {
  const auto entry = inbox_.find(job.command.tid);
  if (!entry || entry->command.cmdid != job.command.cmdid || !is_up(*entry)) return;
  auto tid = TaskId::parse(job.command.tid);
  if (!tid) return;
  auto state = hypervisor_.state(tid->instance);
  if (!state || (*state != VmState::running && *state != VmState::paused)) return;
  const auto place = place_of(*state);
  if (entry->status->state == to_string(place.state)) return;
  obs::info("vm.changed", {{"tid", job.command.tid}, {"state", std::string(to_string(*state))}});
  const Call call{job.command, std::move(*tid), {}};
  if (auto told = inbox_.report(final_report(call, event_of(*state), place, job.detail)); !told) {
    obs::warn("operation.not_told", {{"tid", call.tid.str()}, {"reason", told.error().message}});
  }
}

}  // namespace educloud::nc
