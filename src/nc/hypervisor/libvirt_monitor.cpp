#include "nc/hypervisor/libvirt_monitor.hpp"

#include <libvirt/libvirt-qemu.h>

#include "nc/hypervisor/libvirt_connection.hpp"

namespace educloud::nc {

Result<nlohmann::json> ask_monitor(virDomainPtr domain, const std::string& execute,
                                   const nlohmann::json& arguments) {
  const std::string command = nlohmann::json{{"execute", execute}, {"arguments", arguments}}.dump();
  char* raw = nullptr;
  if (virDomainQemuMonitorCommand(domain, command.c_str(), &raw, 0) < 0) return fail(libvirt_error(execute));
  const LibvirtText text(raw);
  auto reply = nlohmann::json::parse(text ? text.get() : "", nullptr, false);
  if (!reply.is_object()) return fail(ErrorCode::internal, execute + ": QEMU's answer is no JSON object");
  if (reply.contains("error")) {
    const std::string reason = reply["error"].value("desc", "no reason given");
    const bool full = reason.find("No space left") != std::string::npos;
    return fail(full ? ErrorCode::exhausted : ErrorCode::internal, execute + ": " + reason);
  }
  if (!reply.contains("return")) return fail(ErrorCode::internal, execute + ": QEMU's answer has no return");
  return std::move(reply["return"]);
}

}  // namespace educloud::nc
