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

Result<> FakeHypervisor::set_disk_secret(const InstanceId& insid, const std::string& secret) {
  std::lock_guard lock(mutex_);
  if (auto ok = check(); !ok) return ok;
  disk_secrets_[insid.str()] = secret;
  return {};
}

Result<> FakeHypervisor::drop_disk_secret(const InstanceId& insid) {
  std::lock_guard lock(mutex_);
  if (auto ok = check(); !ok) return ok;
  disk_secrets_.erase(insid.str());
  return {};
}

std::map<std::string, std::string> FakeHypervisor::disk_secrets() const {
  std::lock_guard lock(mutex_);
  return disk_secrets_;
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
    info.incoming = spec.incoming;
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
    const bool paused = vms_[insid.str()].second.state == VmState::paused;
    if (ignore_power_button_ || paused) return {};
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
    diverted_.erase(insid.str());
  }
  emit({VmEvent::Kind::stopped, insid.str(), "it was ended on the host"});
  return {};
}

Result<> FakeHypervisor::switch_to(const InstanceId& insid, VmState to, VmEvent::Kind kind) {
  {
    std::lock_guard lock(mutex_);
    if (auto ok = check(); !ok) return ok;
    const auto found = vms_.find(insid.str());
    if (found == vms_.end()) return fail(ErrorCode::not_found, "no VM " + insid.str());
    if (std::exchange(found->second.second.state, to) == to) return {};
  }
  emit({kind, insid.str(), "it was asked to on the host"});
  return {};
}

Result<> FakeHypervisor::pause(const InstanceId& insid) {
  return switch_to(insid, VmState::paused, VmEvent::Kind::paused);
}

Result<> FakeHypervisor::resume(const InstanceId& insid) {
  return switch_to(insid, VmState::running, VmEvent::Kind::resumed);
}

Result<> FakeHypervisor::reboot(const InstanceId& insid) {
  {
    std::lock_guard lock(mutex_);
    if (auto ok = check(); !ok) return ok;
    const auto found = vms_.find(insid.str());
    if (found == vms_.end()) return fail(ErrorCode::not_found, "no VM " + insid.str());
    ++reboots_;
    if (ignore_power_button_ || found->second.second.state == VmState::paused) return {};
  }
  emit({VmEvent::Kind::rebooted, insid.str(), {}});
  return {};
}

Result<> FakeHypervisor::reset(const InstanceId& insid) {
  {
    std::lock_guard lock(mutex_);
    if (auto ok = check(); !ok) return ok;
    if (!vms_.contains(insid.str())) return fail(ErrorCode::not_found, "no VM " + insid.str());
    ++resets_;
  }
  emit({VmEvent::Kind::rebooted, insid.str(), {}});
  return {};
}

Result<> FakeHypervisor::set_limits(const InstanceId& insid, const msg::Limits& limits) {
  std::lock_guard lock(mutex_);
  if (auto ok = check(); !ok) return ok;
  const auto found = vms_.find(insid.str());
  if (found == vms_.end()) return fail(ErrorCode::not_found, "no VM " + insid.str());
  found->second.first.limits = limits;
  return {};
}

Result<GuestFacts> FakeHypervisor::guest_facts(const InstanceId& insid) {
  std::lock_guard lock(mutex_);
  if (auto ok = check(); !ok) return fail(ok.error());
  if (!vms_.contains(insid.str())) return fail(ErrorCode::not_found, "no VM " + insid.str());
  const auto found = facts_.find(insid.str());
  return found == facts_.end() ? GuestFacts{} : found->second;
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
    diverted_.erase(insid.str());
  }
  if (!silently) emit({kind, insid.str(), "ended by the test"});
}

void FakeHypervisor::set_facts(const InstanceId& insid, GuestFacts facts) {
  std::lock_guard lock(mutex_);
  facts_[insid.str()] = std::move(facts);
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

int FakeHypervisor::reboots() const {
  std::lock_guard lock(mutex_);
  return reboots_;
}

int FakeHypervisor::resets() const {
  std::lock_guard lock(mutex_);
  return resets_;
}

}  // namespace educloud::nc
