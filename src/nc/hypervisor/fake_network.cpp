#include <fcntl.h>

#include "common/sys/file.hpp"
#include "nc/hypervisor/fake_hypervisor.hpp"

namespace educloud::nc {

struct FakeHypervisor::Diverted {
  explicit Diverted(const NetSockets& given)
      : from_guest(own(given.from_guest)),
        to_net(own(given.to_net)),
        from_net(own(given.from_net)),
        to_guest(own(given.to_guest)) {}
  static sys::Fd own(int fd) { return sys::Fd(::fcntl(fd, F_DUPFD_CLOEXEC, 0)); }
  sys::Fd from_guest, to_net, from_net, to_guest;
};

Result<> FakeHypervisor::divert_network(const InstanceId& insid, const NetSockets& sockets) {
  std::lock_guard lock(mutex_);
  if (auto ok = check(); !ok) return ok;
  if (!vms_.contains(insid.str())) return fail(ErrorCode::not_found, "no VM " + insid.str());
  diverted_[insid.str()] = std::make_shared<Diverted>(sockets);
  return {};
}

Result<> FakeHypervisor::undivert_network(const InstanceId& insid) {
  std::lock_guard lock(mutex_);
  if (auto ok = check(); !ok) return ok;
  diverted_.erase(insid.str());
  return {};
}

std::optional<NetSockets> FakeHypervisor::diverted(const InstanceId& insid) const {
  std::lock_guard lock(mutex_);
  const auto found = diverted_.find(insid.str());
  if (found == diverted_.end()) return std::nullopt;
  const auto& own = *found->second;
  return NetSockets{own.from_guest.get(), own.to_net.get(), own.from_net.get(), own.to_guest.get()};
}

}  // namespace educloud::nc
