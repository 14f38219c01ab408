#include "nc/hypervisor/fake_hypervisor.hpp"

#include "nc/hypervisor/png.hpp"

namespace educloud::nc {

Result<> FakeHypervisor::start(OnVmEvent on_event) {
  std::lock_guard lock(mutex_);
  on_event_ = std::move(on_event);
  return {};
}

void FakeHypervisor::stop() {
  std::lock_guard lock(mutex_);
  on_event_ = nullptr;
}

std::vector<std::string> FakeHypervisor::warnings() const {
  return {"hypervisor = \"fake\": no guest really runs"};
}

Result<> FakeHypervisor::check() const {
  if (reachable_) return {};
  return fail(ErrorCode::unavailable, "the hypervisor does not answer");
}

void FakeHypervisor::emit(const VmEvent& event) {
  OnVmEvent handler;
  {
    std::lock_guard lock(mutex_);
    handler = on_event_;
  }
  if (handler) handler(event);
}

Result<> FakeHypervisor::define_and_start(const VmSpec& spec) {
  {
    std::lock_guard lock(mutex_);
    if (auto ok = check(); !ok) return ok;
    if (next_error_) return fail(*std::exchange(next_error_, std::nullopt));
    if (const auto old = vms_.find(spec.insid.str()); old != vms_.end()) {
      if (old->second.second.tid == spec.tid.str()) return {};
      return fail(ErrorCode::conflict, "a VM named " + spec.insid.str() + " runs already");
    }
    VmInfo info;
    info.insid = spec.insid;
    info.tid = spec.tid.str();
    info.cmdid = spec.cmdid;
    info.epoch = spec.epoch;
    info.exclusive = spec.exclusive;
    info.uuid = "00000000-0000-0000-0000-000000000000";
    info.memory_mib = spec.memory_mib;
    info.cpus = spec.cpus;
    vms_[spec.insid.str()] = {spec, info};
    ++starts_;
  }
  emit({VmEvent::Kind::started, spec.insid.str(), {}});
  return {};
}

Result<> FakeHypervisor::shutdown(const InstanceId& insid) {
  {
    std::lock_guard lock(mutex_);
    if (auto ok = check(); !ok) return ok;
    if (!vms_.contains(insid.str())) return fail(ErrorCode::not_found, "no VM " + insid.str());
    if (ignore_power_button_) return {};
    vms_.erase(insid.str());
  }
  emit({VmEvent::Kind::stopped, insid.str(), "the guest powered itself off"});
  return {};
}

Result<> FakeHypervisor::destroy(const InstanceId& insid) {
  {
    std::lock_guard lock(mutex_);
    if (auto ok = check(); !ok) return ok;
    if (vms_.erase(insid.str()) == 0) return {};
  }
  emit({VmEvent::Kind::stopped, insid.str(), "it was ended on the host"});
  return {};
}

Result<std::vector<VmInfo>> FakeHypervisor::list() {
  std::lock_guard lock(mutex_);
  if (auto ok = check(); !ok) return fail(ok.error());
  std::vector<VmInfo> all;
  for (const auto& [insid, vm] : vms_) all.push_back(vm.second);
  return all;
}

Result<VmState> FakeHypervisor::state(const InstanceId& insid) {
  std::lock_guard lock(mutex_);
  if (auto ok = check(); !ok) return fail(ok.error());
  const auto found = vms_.find(insid.str());
  if (found == vms_.end()) return fail(ErrorCode::not_found, "no VM " + insid.str());
  return found->second.second.state;
}

Result<std::string> FakeHypervisor::screenshot(const InstanceId& insid) {
  if (auto now = state(insid); !now) return fail(now.error());
  return to_png("P6\n2 1\n255\n" + std::string(6, '\x7f'));
}

void FakeHypervisor::fail_next_start(Error error) {
  std::lock_guard lock(mutex_);
  next_error_ = std::move(error);
}

void FakeHypervisor::set_reachable(bool reachable) {
  std::lock_guard lock(mutex_);
  reachable_ = reachable;
}

void FakeHypervisor::ignore_power_button(bool ignore) {
  std::lock_guard lock(mutex_);
  ignore_power_button_ = ignore;
}

void FakeHypervisor::end(const InstanceId& insid, VmEvent::Kind kind, bool silently) {
  {
    std::lock_guard lock(mutex_);
    vms_.erase(insid.str());
  }
  if (!silently) emit({kind, insid.str(), "ended by the test"});
}

std::optional<VmSpec> FakeHypervisor::spec(const InstanceId& insid) const {
  std::lock_guard lock(mutex_);
  const auto found = vms_.find(insid.str());
  if (found == vms_.end()) return std::nullopt;
  return found->second.first;
}

int FakeHypervisor::starts() const {
  std::lock_guard lock(mutex_);
  return starts_;
}

}  // namespace educloud::nc
