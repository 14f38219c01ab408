#pragma once

#include "common/msg/codec.hpp"

namespace educloud::msg {

/// A VM that is on the node, as the hypervisor and its own metadata say.
struct InventoryVm {
  std::string insid;
  std::string tid;         ///< task that started it; empty: its metadata cannot be read
  std::string cmdid;       ///< command that started it
  std::string state;       ///< as VmData::state
  std::int64_t epoch = 0;  ///< of that command
  int exclusive = 0;       ///< 1: its disk must have one writer in the whole cloud

  static constexpr auto fields() {
    using T = InventoryVm;
    return std::make_tuple(field("insid", &T::insid, text(1, 20)), option("tid", &T::tid, text(0, 64)),
                           option("cmdid", &T::cmdid, text(0, 36)), option("state", &T::state, text(0, 20)),
                           option("epoch", &T::epoch, range(0, 9.0e15)),
                           option("exclusive", &T::exclusive, range(0, 1)));
  }
};

/// A task as the node's inbox has it: its last command, and whether that was answered to the end.
struct InventoryTask {
  std::string tid;
  std::string cmdid;
  std::string op;
  std::int64_t epoch = 0;
  std::int64_t attempt = 0;
  std::int64_t seq = -1;  ///< of the last status told; -1: none yet
  int finished = 0;
  /// Of image/run as in its runtime_option, of instance/migrate on the node that the VM goes to. 0: not told.
  int rdp_port = 0, web_port = 0;
  std::string moves_to = {};  ///< of instance/migrate: that node

  static constexpr auto fields() {
    using T = InventoryTask;
    return std::make_tuple(
        field("tid", &T::tid, text(1, 64)), field("cmdid", &T::cmdid, text(0, 36)),
        option("op", &T::op, text(0, 32)), option("epoch", &T::epoch, range(0, 9.0e15)),
        option("attempt", &T::attempt, range(0, 9.0e15)), option("seq", &T::seq, range(-1, 9.0e15)),
        option("finished", &T::finished, range(0, 1)), option("rdp_port", &T::rdp_port, range(0, 65535)),
        option("web_port", &T::web_port, range(0, 65535)), option("moves_to", &T::moves_to, text(0, 40)));
  }
};

/// All a node holds, so that clc can compare: after each connect and every 30 s, nc -> cc -> clc with the
/// key of its heartbeat (`nodestatus.nc-<host>`). What does not fit one message is in the next part of the
/// same `round`; only a complete round is compared.
struct Inventory {
  std::string type = "inventory";
  std::string nid;  ///< `nc#<mac0>#status`
  std::string host;
  std::string ccid;  ///< host name of the cc that relayed it
  int v = 1;
  std::int64_t ts = 0;           ///< unix milliseconds, when it was taken
  std::string round;             ///< one per taking
  int part = 1, parts = 1;       ///< 1..parts
  std::int64_t lease_epoch = 0;  ///< of the last grant the node has seen; 0: none since its start
  std::vector<InventoryVm> vms;
  std::vector<InventoryTask> tasks;

  static constexpr auto fields() {
    using T = Inventory;
    return std::make_tuple(field("type", &T::type, choice("inventory")), field("nid", &T::nid, text(0, 64)),
                           field("host", &T::host, text(1, 40)), option("ccid", &T::ccid, text(0, 40)),
                           option("v", &T::v, range(1, 1000)), field("ts", &T::ts, range(0, 9.0e15)),
                           field("round", &T::round, text(1, 64)), field("part", &T::part, range(1, 100)),
                           field("parts", &T::parts, range(1, 100)),
                           option("lease_epoch", &T::lease_epoch, range(0, 9.0e15)),
                           field("vms", &T::vms, list(200)), field("tasks", &T::tasks, list(200)));
  }
};

}  // namespace educloud::msg
