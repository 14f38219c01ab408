#pragma once

#include <libvirt/libvirt.h>

#include "nc/hypervisor/hypervisor.hpp"

// Private to nc/hypervisor.
namespace educloud::nc {

/// See Hypervisor::divert_network, undivert_network.
Result<> divert_domain(virDomainPtr domain, const NetSockets& sockets);
Result<> undivert_domain(virDomainPtr domain);

}  // namespace educloud::nc
