#include "cc/domain/routing.hpp"

#include <array>

#include "common/base/ids.hpp"
#include "common/task/state.hpp"

namespace educloud::cc {
namespace {

/// CONTRACT.md: heartbeats live 30 s in a queue.
constexpr std::chrono::milliseconds kHeartbeatLife{30'000};
/// A grant counts from when it comes, so it must not come late.
constexpr std::chrono::milliseconds kLeaseLife{10'000};

struct Relayed {
  std::string_view op;
  task::Phase phase;
  task::State on_failure;
  bool is_operation = false;  ///< the VM stays as it is when it cannot be done
};
constexpr std::array kOps{
    Relayed{"image/prepare", task::Phase::preparing, task::State::init},
    Relayed{"image/run", task::Phase::editing, task::State::stopped},
    Relayed{"image/stop", task::Phase::editing, task::State::stopped},
    Relayed{"image/submit", task::Phase::submitting, task::State::init},
    Relayed{"task/delete", task::Phase::editing, task::State::deleting},
    Relayed{"instance/pause", task::Phase::editing, task::State::running, true},
    Relayed{"instance/resume", task::Phase::editing, task::State::paused, true},
    Relayed{"instance/restart", task::Phase::editing, task::State::running, true},
    Relayed{"instance/limit", task::Phase::editing, task::State::running, true},
    Relayed{"instance/migrate", task::Phase::editing, task::State::running, true},
    Relayed{"snapshot/take", task::Phase::editing, task::State::running, true},
    Relayed{"snapshot/restore", task::Phase::editing, task::State::stopped, true},
    Relayed{"snapshot/delete", task::Phase::editing, task::State::running, true},
};

const Relayed* find_op(std::string_view op) {
  const auto it = std::find_if(kOps.begin(), kOps.end(), [&](const Relayed& one) { return one.op == op; });
  return it == kOps.end() ? nullptr : &*it;
}

/// The document with one key set: everything else, known or not, stays as the sender wrote it.
std::string stamped(nlohmann::json json, const char* key, std::string_view value) {
  json[key] = std::string(value);
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

Result<> check_sender(std::string_view user_id, const std::string& host, const char* key) {
  auto name = HostName::parse(host);
  if (!name) return fail(ErrorCode::invalid_argument, name.error().message, key);
  if (user_id == "nc-" + host) return {};
  return fail(ErrorCode::permission_denied,
              "login '" + std::string(user_id.substr(0, 60)) + "' may not speak for node " + host, key);
}

}  // namespace

Result<CommandRoute> route_command(std::string_view body, std::string_view own_host, std::int64_t now_ms) {
  auto command = msg::parse<msg::Command>(body);
  if (!command) return fail(command.error());
  if (find_op(command->op) == nullptr) {
    return fail(ErrorCode::invalid_argument, "op '" + command->op + "' is not for nodes", "op");
  }
  auto node = HostName::parse(command->nid);
  if (!node) return fail(ErrorCode::invalid_argument, node.error().message, "nid");
  if (command->ccid != own_host) {
    return fail(ErrorCode::permission_denied,
                "the command is for cluster '" + command->ccid + "', this is " + std::string(own_host),
                "ccid");
  }
  auto cmdid = CommandId::parse(command->cmdid);
  if (!cmdid) return fail(ErrorCode::invalid_argument, cmdid.error().message, "cmdid");
  auto tid = TaskId::parse(command->tid);
  if (!tid) return fail(ErrorCode::invalid_argument, tid.error().message, "tid");
  if (command->deadline <= now_ms) {
    return fail(ErrorCode::timeout,
                "its deadline passed " + std::to_string((now_ms - command->deadline) / 1000) + " s ago",
                "deadline");
  }
  CommandRoute route;
  route.forward.routing_key = node->str();
  route.forward.body = std::string(body);
  route.forward.msgid = command->cmdid;
  route.forward.expiration = std::chrono::milliseconds{command->deadline - now_ms};
  route.command = std::move(*command);
  return route;
}

msg::TaskStatus undeliverable(const msg::Command& command, std::string_view own_host, std::int64_t now_ms) {
  const Relayed* op = find_op(command.op);
  msg::TaskStatus status;
  status.phase = std::string(task::to_string(op != nullptr ? op->phase : task::Phase::editing));
  status.state = std::string(task::to_string(op != nullptr ? op->on_failure : task::State::stopped));
  status.tid = command.tid;
  status.prompt = "not delivered";
  status.errormsg =
      "Node " + command.nid + " has no command queue at the broker, so '" + command.op +
      "' cannot reach it. Import broker definitions that name the node (`educloud init --node " +
      command.nid + "` renders them), or choose another node.";
  status.failed = 1;
  status.cmdid = command.cmdid;
  status.msgid = command.cmdid + "-returned";
  status.nid = command.nid;
  status.ccid = std::string(own_host);
  status.epoch = command.epoch;
  status.attempt = command.attempt;
  status.seq = 0;
  status.final = 1;
  status.ts = now_ms;
  const bool stays = op != nullptr && op->is_operation;
  status.event = std::string(task::to_string(stays ? task::Event::refused : task::Event::failed));
  return status;
}

Result<StatusRoute> route_status(std::string_view body, std::string_view user_id, std::string_view own_host) {
  auto json = msg::parse_json(body);
  if (!json) return fail(json.error());
  auto status = msg::from_json<msg::TaskStatus>(*json);
  if (!status) return fail(status.error());
  auto sender = check_sender(user_id, status->nid, "nid");
  if (!sender) return fail(sender.error());
  StatusRoute route;
  route.nid = status->nid;
  route.tid = status->tid;
  route.forward.routing_key = "taskstatus.cc-" + std::string(own_host);
  route.forward.msgid = status->msgid.empty() ? status->cmdid : status->msgid;
  route.forward.body = stamped(std::move(*json), "ccid", own_host);
  return route;
}

Result<HeartbeatRoute> route_heartbeat(std::string_view body, std::string_view user_id,
                                       std::string_view own_host) {
  auto json = msg::parse_json(body);
  if (!json) return fail(json.error());
  auto status = msg::from_json<msg::NodeStatus>(*json);
  if (!status) return fail(status.error());
  auto sender = check_sender(user_id, status->host, "host");
  if (!sender) return fail(sender.error());
  HeartbeatRoute route;
  route.status = std::move(*status);
  route.status.ccid = std::string(own_host);
  route.forward.routing_key = "nodestatus.cc-" + std::string(own_host);
  route.forward.msgid = "nodestatus-" + route.status.host + "-" + std::to_string(route.status.ts);
  route.forward.expiration = kHeartbeatLife;
  route.forward.body = stamped(std::move(*json), "ccid", own_host);
  return route;
}

Result<InventoryRoute> route_inventory(std::string_view body, std::string_view user_id,
                                       std::string_view own_host) {
  auto json = msg::parse_json(body);
  if (!json) return fail(json.error());
  auto inventory = msg::from_json<msg::Inventory>(*json);
  if (!inventory) return fail(inventory.error());
  auto sender = check_sender(user_id, inventory->host, "host");
  if (!sender) return fail(sender.error());
  InventoryRoute route;
  route.host = inventory->host;
  route.forward.routing_key = "nodestatus.cc-" + std::string(own_host);
  route.forward.msgid = inventory->round + "-" + std::to_string(inventory->part);
  route.forward.expiration = kHeartbeatLife;
  route.forward.body = stamped(std::move(*json), "ccid", own_host);
  return route;
}

Result<std::vector<Forward>> route_lease(std::string_view body, std::string_view own_host) {
  auto lease = msg::parse<msg::Lease>(body);
  if (!lease) return fail(lease.error());
  if (lease->ccid != own_host) {
    return fail(ErrorCode::permission_denied,
                "the lease is for cluster '" + lease->ccid + "', this is " + std::string(own_host), "ccid");
  }
  std::vector<Forward> out;
  for (const auto& grant : lease->grants) {
    auto node = HostName::parse(grant.host);
    if (!node) return fail(ErrorCode::invalid_argument, node.error().message, "grants.host");
    msg::Lease own;
    own.ccid = lease->ccid;
    own.ts = lease->ts;
    own.grants = {grant};
    out.push_back({"lease." + node->str(), msg::serialize(own),
                   "lease-" + node->str() + "-" + std::to_string(lease->ts), kLeaseLife});
  }
  return out;
}

Forward own_heartbeat(const msg::CcStatus& status, std::string_view own_host) {
  Forward forward;
  forward.routing_key = "ccstatus.cc-" + std::string(own_host);
  forward.msgid = "ccstatus-" + std::string(own_host) + "-" + std::to_string(status.ts);
  forward.expiration = kHeartbeatLife;
  forward.body = msg::serialize(status);
  return forward;
}

}  // namespace educloud::cc
