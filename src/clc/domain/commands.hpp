#pragma once

#include <optional>
#include <string>

#include "clc/domain/types.hpp"
#include "common/msg/command.hpp"

namespace educloud::clc {

/// What is to be done to a VM that runs, or has run.
struct Operation {
  std::string op;  ///< instance/... or snapshot/..., see msg::Command
  msg::Limits limits;
  std::string snapshot;
  bool with_memory = false;
  std::optional<msg::Move> move = {};
};

/// Of the VM's database disk.
struct DatabaseParts {
  std::optional<Version> source;  ///< prepare, run, submit: what it was first made from
  std::string source_grant;       ///< prepare, run
  std::string mode = "iscsi";     ///< as Cluster says
  std::vector<std::string> lost;  ///< prepare, run: nodes of its cluster that are lost
  std::string grant;              ///< opens, closes and submits it; with task/delete it goes
  std::string target_imgid;       ///< submit
  int target_version = 0;
  std::string target_grant;
};

/// What a command needs beside its task; only what its op uses is read.
struct CommandParts {
  std::optional<Version> source;  ///< prepare, run
  std::string source_grant;       ///< prepare, run
  std::string target_grant;       ///< submit
  std::vector<int> versions;      ///< prune
  std::int64_t disk_bytes = 0;    ///< blank
  // run
  std::int64_t memory_mib = 0;
  int cpus = 1;
  std::string ostype, usage, disk_type, nic_type;
  std::vector<msg::Folder> folders;
  std::string folder_protocol = "virtiofs";
  Access access;
  msg::Limits limits;  ///< of the VM: run
  msg::FirstBoot first_boot;
  std::optional<Operation> operation;
  std::optional<DatabaseParts> database;
};

/// The next command of `task`. `op` as in CONTRACT.md; `patience_ms`: from now, how long it may be begun.
msg::Command make_command(const Task& task, std::string_view op, const CommandParts& parts, std::string cmdid,
                          std::int64_t now_ms, std::int64_t patience_ms);

/// The MAC of an instance's first card: 52:54:00 and three bytes of its id, so it keeps it over its runs.
std::string mac_of(std::string_view insid);

}  // namespace educloud::clc
