#pragma once

#include "common/msg/command.hpp"
#include "common/msg/host_status.hpp"
#include "common/msg/task_status.hpp"

namespace educloud::cc {

inline const std::string kTid = "IMG00000001:IMG00000001:VD00000002";
inline const std::string kCmdid = "01890a5d-ac96-774b-bcce-b302099a8057";

inline msg::Command sample_command(std::int64_t deadline_ms) {
  msg::Command command;
  command.op = "image/run";
  command.tid = kTid;
  command.cmdid = kCmdid;
  command.nid = "nc1";
  command.ccid = "cc1";
  command.epoch = 3;
  command.attempt = 2;
  command.deadline = deadline_ms;
  return command;
}

inline msg::TaskStatus sample_status() {
  msg::TaskStatus status;
  status.phase = "editing";
  status.state = "running";
  status.tid = kTid;
  status.cmdid = kCmdid;
  status.msgid = "m-1";
  status.nid = "nc1";
  status.seq = 7;
  status.event = "running";
  return status;
}

inline msg::NodeStatus sample_heartbeat() {
  msg::NodeStatus status;
  status.nid = "nc#52:54:00:00:00:01#status";
  status.host = "nc1";
  status.ts = 1000;
  status.net_data.ip0 = "10.0.0.11";
  status.service_data.data_port = 8003;
  return status;
}

}  // namespace educloud::cc
