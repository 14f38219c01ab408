#pragma once

#include <chrono>
#include <filesystem>
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

/// True if libvirt's qemu driver puts its guests under AppArmor or SELinux.
bool is_confined(virConnectPtr connection);

/// The user that libvirt runs QEMU as, of its "dac" security model. Errors: internal (it does not say).
Result<unsigned> qemu_uid(virConnectPtr connection);

/// Where the libvirtd at `uri` keeps the pid files of its guests: beside its socket.
std::filesystem::path pid_folder(std::string_view uri);
/// MiB of memory that the process named in `folder`/`name`.pid really has; 0: not known. libvirt would ask
/// QEMU, and wait for ever for one that hangs.
std::int64_t resident_mib(const std::filesystem::path& folder, const std::string& name);

/// Presses the power button. Errors: as libvirt says; timeout, if QEMU has not taken it after `patience`: the
/// call goes on in a thread of its own until QEMU answers or ends.
Result<> press_power_button(ConnectRef connection, DomainRef domain, std::chrono::milliseconds patience);

}  // namespace educloud::nc
