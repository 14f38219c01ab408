#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "nc/hypervisor/hypervisor.hpp"

namespace educloud::nc {

struct LibvirtOptions {
  std::string uri = "qemu:///system";
  std::string accel =
      "auto";  ///< auto: KVM if a boot sector really ran under it; kvm: or refuse to start; tcg
  std::chrono::milliseconds first_connect{
      5000};  ///< how long start() waits; later it goes on in the background
};

/// Hypervisor over libvirt's C API. Domains are transient; their name is the instance id and their metadata
/// names the task, so that they are found again whoever was restarted. When libvirtd dies the connection is
/// opened again for ever (0.5 to 5 s apart) and a resync event is sent, and a second one a second later: a VM
/// that died meanwhile is still listed at first and then vanishes without an event.
std::unique_ptr<Hypervisor> make_libvirt_hypervisor(LibvirtOptions options);

}  // namespace educloud::nc
