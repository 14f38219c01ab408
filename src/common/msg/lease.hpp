#pragma once

#include "common/msg/codec.hpp"

namespace educloud::msg {

/// clc has heard of this node lately: it may go on.
struct LeaseGrant {
  std::string host;
  std::int64_t epoch = 0;  ///< the node's lease epoch; it rises when the node is declared lost

  static constexpr auto fields() {
    using T = LeaseGrant;
    return std::make_tuple(field("host", &T::host, text(1, 40)), field("epoch", &T::epoch, range(1, 9.0e15)));
  }
};

/// Grants for a cluster's nodes, every 5 s: clc -> cc over `cc_cmd`, which passes each node its own (a Lease
/// with that one grant) over `nc_cmd` with the key `lease.<nc>`. A node counts from when it came
/// (CLOCK_BOOTTIME), so no clocks are compared; it expires in the broker so that an old one can not come
/// late.
struct Lease {
  std::string type = "lease";
  std::string ccid;  ///< host name of the cc it goes through
  int v = 1;
  std::int64_t ts = 0;  ///< unix milliseconds
  std::vector<LeaseGrant> grants;

  static constexpr auto fields() {
    using T = Lease;
    return std::make_tuple(field("type", &T::type, choice("lease")), field("ccid", &T::ccid, text(1, 40)),
                           option("v", &T::v, range(1, 1000)), field("ts", &T::ts, range(0, 9.0e15)),
                           field("grants", &T::grants, list(1000)));
  }
};

}  // namespace educloud::msg
