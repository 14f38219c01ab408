#include "nc/hypervisor/libvirt_secret.hpp"

#include <memory>

#include <libvirt/virterror.h>

#include "nc/domain/vm_spec.hpp"
#include "nc/hypervisor/libvirt_connection.hpp"

namespace educloud::nc {
namespace {

struct FreeSecret {
  void operator()(virSecretPtr p) const { virSecretFree(p); }
};
using SecretRef = std::unique_ptr<virSecret, FreeSecret>;

}  // namespace

Result<> set_secret(virConnectPtr connection, const InstanceId& insid, const std::string& secret) {
  const std::string xml = "<secret ephemeral='yes' private='yes'><uuid>" + secret_uuid(insid) +
                          "</uuid><usage type='iscsi'><target>" + insid.str() + "</target></usage></secret>";
  const SecretRef defined(virSecretDefineXML(connection, xml.c_str(), 0));
  if (!defined) return fail(libvirt_error("keep the secret of " + insid.str() + "'s database disk"));
  const auto* bytes = reinterpret_cast<const unsigned char*>(secret.data());
  if (virSecretSetValue(defined.get(), bytes, secret.size(), 0) == 0) return {};
  return fail(libvirt_error("keep the secret of " + insid.str() + "'s database disk"));
}

Result<> drop_secret(virConnectPtr connection, const InstanceId& insid) {
  const SecretRef found(virSecretLookupByUUIDString(connection, secret_uuid(insid).c_str()));
  if (found && virSecretUndefine(found.get()) == 0) return {};
  const auto* error = virGetLastError();
  if (error != nullptr && error->code == VIR_ERR_NO_SECRET) return {};
  return fail(libvirt_error("forget the secret of " + insid.str() + "'s database disk"));
}

}  // namespace educloud::nc
