#pragma once

#include <memory>
#include <string>
#include <string_view>

#include <libvirt/libvirt.h>

#include "common/base/result.hpp"
#include "nc/hypervisor/hypervisor.hpp"

// Private to nc/hypervisor: libvirt's handles that free themselves, its errors, its event loop.
namespace educloud::nc {

struct FreeLibvirt {
  void operator()(virConnectPtr p) const { virConnectClose(p); }
  void operator()(virDomainPtr p) const { virDomainFree(p); }
  void operator()(virStreamPtr p) const { virStreamFree(p); }
  void operator()(char* p) const { free(p); }
};
using ConnectRef = std::shared_ptr<virConnect>;
using DomainRef = std::unique_ptr<virDomain, FreeLibvirt>;
using StreamRef = std::unique_ptr<virStream, FreeLibvirt>;
using LibvirtText = std::unique_ptr<char, FreeLibvirt>;

/// The calling thread's last libvirt error, as ours.
Error libvirt_error(std::string_view what);

/// Starts the process's one libvirt event loop, the first time it is called; before any virConnectOpen.
void ensure_libvirt_events();

/// A lifecycle event of libvirt as ours; nullopt for those nobody needs.
std::optional<VmEvent> lifecycle_event(const char* domain_name, int event, int detail);

VmState from_libvirt(int state);

}  // namespace educloud::nc
