#include "nc/hypervisor/fake_hypervisor.hpp"

namespace educloud::nc {

Result<> FakeHypervisor::receive(const VmSpec& spec, const MovePlaces&) {
  {
    std::lock_guard lock(mutex_);
    if (vms_.contains(spec.insid.str()))
      return fail(ErrorCode::conflict, "a VM named " + spec.insid.str() + " runs already");
  }
  VmSpec waiting = spec;
  waiting.incoming = true;
  if (auto ok = define_and_start(waiting); !ok) return ok;
  return pause(spec.insid);
}

Result<bool> FakeHypervisor::has_arrived(const InstanceId& insid) {
  if (auto there = state(insid); !there) return fail(there.error());
  return true;
}

Result<> FakeHypervisor::take_over(const InstanceId& insid) {
  return resume(insid);
}

Result<> FakeHypervisor::send_away(const InstanceId& insid, const MovePlaces&, const OnMoved& moved,
                                   std::stop_token) {
  constexpr std::uint64_t kBytes = 1 << 20;
  {
    std::lock_guard lock(mutex_);
    if (auto ok = check(); !ok) return ok;
    if (next_move_error_) return fail(*std::exchange(next_move_error_, std::nullopt));
  }
  if (moved) moved({MoveStep::disks, kBytes, kBytes});
  if (moved) moved({MoveStep::memory, kBytes, kBytes});
  return pause(insid);
}

Result<> FakeHypervisor::keep_here(const InstanceId& insid) {
  return resume(insid);
}

void FakeHypervisor::fail_next_move(Error error) {
  std::lock_guard lock(mutex_);
  next_move_error_ = std::move(error);
}

}  // namespace educloud::nc
