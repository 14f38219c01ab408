#pragma once

#include <libvirt/libvirt.h>

#include "nc/hypervisor/hypervisor.hpp"

// Private to nc/hypervisor: snapshots of a running domain by QEMU's own monitor, since libvirt keeps nothing
// of them for a domain that is transient. As in Hypervisor. Source: qemu-project.gitlab.io, "QEMU QMP
// Reference".
namespace educloud::nc {

Result<std::vector<DiskSnapshot>> domain_snapshots(virDomainPtr domain, const std::filesystem::path& disk);
Result<> take_domain_snapshot(virDomainPtr domain, const std::filesystem::path& disk, const std::string& name,
                              bool with_memory, std::stop_token stop);
Result<> load_domain_snapshot(virDomainPtr domain, const std::filesystem::path& disk, const std::string& name,
                              std::stop_token stop);
Result<> drop_domain_snapshot(virDomainPtr domain, const std::filesystem::path& disk,
                              const std::string& name);

}  // namespace educloud::nc
