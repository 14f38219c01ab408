#pragma once

#include <libvirt/libvirt.h>

#include <filesystem>

#include "nc/hypervisor/hypervisor.hpp"

// Private to nc/hypervisor: what is done to one domain, once it was found. Errors as in Hypervisor.
namespace educloud::nc {

/// nullopt: it is not ours, or it has just ended. `pids`: see pid_folder. Asks nothing that QEMU has to
/// answer.
std::optional<VmInfo> describe_domain(virDomainPtr domain, const std::filesystem::path& pids);
Result<VmState> domain_state(virDomainPtr domain);
Result<> pause_domain(virDomainPtr domain);
Result<> resume_domain(virDomainPtr domain);
Result<> reboot_domain(virDomainPtr domain);
Result<> reset_domain(virDomainPtr domain);
Result<> limit_domain(virDomainPtr domain, const msg::Limits& limits);
Result<GuestFacts> domain_facts(virDomainPtr domain);

Result<std::string> domain_recipe(virDomainPtr domain);
Result<std::string> domain_screenshot(virConnectPtr connection, virDomainPtr domain);

/// True if this host has only the unified control groups, whose weights have another unit.
bool has_cgroup2();

}  // namespace educloud::nc
