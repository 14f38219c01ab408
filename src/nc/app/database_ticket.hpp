#pragma once

#include <optional>
#include <string>

#include "common/msg/codec.hpp"
#include "nc/domain/paths.hpp"

namespace educloud::nc {

/// VMs/<insid>/database.json, 0600: how the VM's database disk was opened at the cc. There from before it is
/// opened until after it is closed, so that whoever finds it closes what was opened.
struct DatabaseTicket {
  std::int64_t epoch = 0;
  std::string grant;
  std::string secret;  ///< of CHAP; empty: not told yet, or it comes another way
  int joining = 0;     ///< 1: the VM is on its way here, and its disk another node's as yet
  // Mode copy. VMs/<insid>/database is that copy, whole, if it is there.
  std::string copy;  ///< which one, as the cc calls it; empty: there is none
  int newer = 0;     ///< 1: it may hold what the cc's disk does not
  std::string give;  ///< the sending of it that is under way

  static constexpr auto fields() {
    using T = DatabaseTicket;
    return std::make_tuple(msg::field("epoch", &T::epoch, msg::range(0, 9.0e15)),
                           msg::field("grant", &T::grant, msg::text(1, 512)),
                           msg::option("secret", &T::secret, msg::text(0, 64)),
                           msg::option("joining", &T::joining, msg::range(0, 1)),
                           msg::option("copy", &T::copy, msg::text(0, 16)),
                           msg::option("newer", &T::newer, msg::range(0, 1)),
                           msg::option("give", &T::give, msg::text(0, 16)));
  }
};

/// nullopt: there is none.
Result<std::optional<DatabaseTicket>> read_ticket(const Layout& layout, const InstanceId& insid);
/// Atomic and durable.
Result<> write_ticket(const Layout& layout, const InstanceId& insid, const DatabaseTicket& ticket);

}  // namespace educloud::nc
