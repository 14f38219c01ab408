#include "nc/hypervisor/hypervisor.hpp"

#include <unistd.h>

namespace educloud::nc {

std::string_view to_string(VmState state) {
  switch (state) {
    case VmState::running: return "running";
    case VmState::paused: return "paused";
    case VmState::shutdown: return "shutdown";
    case VmState::shutoff: return "shutoff";
    case VmState::crashed: return "crashed";
  }
  return "shutoff";
}

Result<> Hypervisor::divert_network(const InstanceId&, const NetSockets&) {
  return fail(ErrorCode::unavailable, "this hypervisor cannot divert a VM's network");
}

Result<> Hypervisor::undivert_network(const InstanceId&) {
  return {};
}

Result<unsigned> Hypervisor::guest_uid() {
  return ::geteuid();
}

}  // namespace educloud::nc
