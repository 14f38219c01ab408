#pragma once

#include <string>

#include <libvirt/libvirt.h>

#include "common/base/ids.hpp"
#include "common/base/result.hpp"

// Private to nc/hypervisor: the secret of a VM's database disk at libvirt, which gives it to QEMU enciphered.
namespace educloud::nc {

/// In libvirtd's memory only, and not readable through its API. There already: replaced.
Result<> set_secret(virConnectPtr connection, const InstanceId& insid, const std::string& secret);
/// Not there: success.
Result<> drop_secret(virConnectPtr connection, const InstanceId& insid);

}  // namespace educloud::nc
