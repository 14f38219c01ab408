// QEMU's filter-redirector: the frames of a network card leave through one character device and come back by
// another, both sockets of ours that QEMU gets as descriptors, so no file and no port names them.
#include "nc/hypervisor/libvirt_network.hpp"

#include <libvirt/libvirt-qemu.h>

#include "nc/hypervisor/libvirt_connection.hpp"
#include "nc/hypervisor/libvirt_monitor.hpp"

namespace educloud::nc {
namespace {

using nlohmann::json;

constexpr const char* kNetdev = "edunet0";
constexpr const char* kFilters[] = {"edulimit-up", "edulimit-down"};
constexpr const char* kDevices[] = {"edulimit-from-guest", "edulimit-to-net", "edulimit-from-net",
                                    "edulimit-to-guest"};

/// `fd` becomes a descriptor of QEMU's that is called `name`.
Result<> hand_over(virDomainPtr domain, const std::string& name, int fd) {
  const std::string command = json{{"execute", "getfd"}, {"arguments", {{"fdname", name}}}}.dump();
  char* raw = nullptr;
  const int done =
      virDomainQemuMonitorCommandWithFiles(domain, command.c_str(), 1, &fd, nullptr, nullptr, &raw, 0);
  if (done < 0) return fail(libvirt_error("getfd"));
  const LibvirtText text(raw);
  const auto reply = json::parse(text ? text.get() : "", nullptr, false);
  if (reply.is_object() && reply.contains("return")) return {};
  return fail(ErrorCode::internal, std::string("getfd: ") + (text ? text.get() : "no answer"));
}

Result<> add_device(virDomainPtr domain, const std::string& id, int fd) {
  if (auto ok = hand_over(domain, id, fd); !ok) return ok;
  const json address = {{"type", "fd"}, {"data", {{"str", id}}}};
  const json backend = {{"type", "socket"}, {"data", {{"addr", address}, {"server", false}}}};
  auto added = ask_monitor(domain, "chardev-add", {{"id", id}, {"backend", backend}});
  return added ? Result<>{} : fail(added.error());
}

Result<> add_filter(virDomainPtr domain, int which) {
  // rx is what the netdev receives, from the guest; tx what it gives to the guest.
  auto added = ask_monitor(domain, "object-add",
                           {{"qom-type", "filter-redirector"},
                            {"id", kFilters[which]},
                            {"netdev", kNetdev},
                            {"queue", which == 0 ? "rx" : "tx"},
                            {"outdev", kDevices[2 * which]},
                            {"indev", kDevices[2 * which + 1]}});
  return added ? Result<>{} : fail(added.error());
}

Result<> add_all(virDomainPtr domain, const NetSockets& sockets) {
  const int fds[] = {sockets.from_guest, sockets.to_net, sockets.from_net, sockets.to_guest};
  for (std::size_t i = 0; i < 4; ++i) {
    if (auto ok = add_device(domain, kDevices[i], fds[i]); !ok) return ok;
  }
  for (int which = 0; which < 2; ++which) {
    if (auto ok = add_filter(domain, which); !ok) return ok;
  }
  return {};
}

}  // namespace

Result<> undivert_domain(virDomainPtr domain) {
  // What is not there cannot be removed, and QEMU says so; whether something is left, the list tells.
  for (const auto* id : kFilters) (void)ask_monitor(domain, "object-del", {{"id", id}});
  for (const auto* id : kDevices) (void)ask_monitor(domain, "chardev-remove", {{"id", id}});
  auto left = ask_monitor(domain, "query-chardev");
  if (!left) return fail(left.error());
  for (const auto& one : *left) {
    if (one.value("label", "").starts_with("edulimit-"))
      return fail(ErrorCode::internal, "QEMU keeps " + one.value("label", ""));
  }
  return {};
}

Result<> divert_domain(virDomainPtr domain, const NetSockets& sockets) {
  // Those of before our restart lead nowhere.
  if (auto ok = undivert_domain(domain); !ok) return ok;
  auto added = add_all(domain, sockets);
  if (!added) (void)undivert_domain(domain);
  return added;
}

}  // namespace educloud::nc
