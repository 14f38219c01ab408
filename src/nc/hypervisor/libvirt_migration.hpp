#pragma once

#include <libvirt/libvirt.h>

#include "nc/hypervisor/hypervisor.hpp"

// Private to nc/hypervisor: QEMU's own migration, driven over its monitor (ADR 11). Errors as in Hypervisor.
namespace educloud::nc {

/// Of a VM that was started to wait for another's memory.
Result<> open_for_arrival(virDomainPtr domain, const MovePlaces& places);
Result<bool> domain_has_arrived(virDomainPtr domain);
/// Its disks are nobody else's any more and it runs.
Result<> take_over_domain(virDomainPtr domain);
Result<> send_domain_away(virDomainPtr domain, const MovePlaces& places, const OnMoved& moved,
                          const std::stop_token& stop);
Result<> keep_domain_here(virDomainPtr domain);

}  // namespace educloud::nc
