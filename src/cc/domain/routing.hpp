#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "common/base/result.hpp"
#include "common/msg/command.hpp"
#include "common/msg/host_status.hpp"
#include "common/msg/inventory.hpp"
#include "common/msg/lease.hpp"
#include "common/msg/task_status.hpp"

/// What a cluster controller does with each message: check, add its own part, pass on. All pure.
namespace educloud::cc {

/// A message as it goes on.
struct Forward {
  std::string routing_key;
  std::string body;
  std::string msgid;
  std::chrono::milliseconds expiration{0};  ///< 0: never
};

struct CommandRoute {
  msg::Command command;
  Forward forward;  ///< to `nc_cmd`
};

/// A command from clc. It goes on byte for byte, so that a newer node gets keys that this cc does not know.
/// Errors: timeout (its deadline has passed: drop it, clc gives up by its own clock); invalid_argument,
/// too_large, permission_denied (not for this cc): to the dead letters.
Result<CommandRoute> route_command(std::string_view body, std::string_view own_host, std::int64_t now_ms);

/// What clc is told when the broker has no queue for the command's node. Its seq is 0, below any of the
/// node's own, so it cannot overrule what the node itself says of the same command.
msg::TaskStatus undeliverable(const msg::Command& command, std::string_view own_host, std::int64_t now_ms);

struct StatusRoute {
  std::string nid, tid;
  Forward forward;  ///< to `clc_status`
};
/// A taskstatus from a node, whose login is `user_id` (proved by the broker). `ccid` is stamped.
/// Errors: permission_denied (of another node's name), invalid_argument, too_large.
Result<StatusRoute> route_status(std::string_view body, std::string_view user_id, std::string_view own_host);

struct HeartbeatRoute {
  msg::NodeStatus status;
  Forward forward;  ///< to `clc_status`, expires like the queue it came from
};
/// A nodestatus from a node. Errors: as route_status.
Result<HeartbeatRoute> route_heartbeat(std::string_view body, std::string_view user_id,
                                       std::string_view own_host);

struct InventoryRoute {
  std::string host;
  Forward forward;  ///< to `clc_status`, expires like the queue it came from
};
/// A node's inventory, checked and stamped like its heartbeat. Errors: as route_status.
Result<InventoryRoute> route_inventory(std::string_view body, std::string_view user_id,
                                       std::string_view own_host);

/// Grants of clc for this cluster's nodes: to `nc_cmd`, each node its own, under its lease key; they expire
/// soon. Errors: invalid_argument, too_large, permission_denied (for another cluster).
Result<std::vector<Forward>> route_lease(std::string_view body, std::string_view own_host);

/// This cc's own heartbeat.
Forward own_heartbeat(const msg::CcStatus& status, std::string_view own_host);

}  // namespace educloud::cc
