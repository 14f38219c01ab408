#pragma once

#include <string>

#include "nc/domain/vm_spec.hpp"

namespace educloud::nc {

/// What does not depend on the VM.
struct HostTraits {
  bool kvm = false;
  bool cgroup2 = false;  ///< the host has the unified hierarchy only
};

/// The libvirt domain of `spec` (format: libvirt.org/formatdomain.html). It asks for no security label:
/// libvirt then uses what its qemu.conf says, AppArmor or SELinux where there is one, and gives the files to
/// QEMU's user.
std::string domain_xml(const VmSpec& spec, const HostTraits& host);

/// Our metadata in a domain's XML: which task it belongs to.
struct DomainTask {
  std::string tid;
  std::string cmdid;
  std::int64_t epoch = 0;
  bool exclusive = false;
  bool incoming = false;  ///< see VmSpec
};
/// Errors: not_found if it is not a domain of ours.
Result<DomainTask> task_of_domain(const std::string& xml);

/// The disks of a domain's XML that the guest may write to, by their target: "vda".
std::vector<std::string> written_disks(const std::string& xml);

/// How to boot a VM that came from another node: without waiting for it to come.
std::string without_incoming(const std::string& xml);

}  // namespace educloud::nc
