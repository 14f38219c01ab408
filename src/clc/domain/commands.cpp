#include "clc/domain/commands.hpp"

#include "clc/domain/vm_disks.hpp"

namespace educloud::clc {
namespace {

msg::RuntimeOption runtime_option(const Task& task, const CommandParts& parts) {
  msg::RuntimeOption out;
  out.ostype = parts.ostype;
  out.usage = parts.usage;
  out.memory_mib = parts.memory_mib;
  out.cpus = parts.cpus;
  out.disk_type = parts.disk_type;
  out.networkcards = {{parts.nic_type, mac_of(task.insid), ""}};
  out.disks = disks_of(task, parts.usage);
  out.folders = parts.folders;
  out.folder_protocol = parts.folder_protocol;
  out.run_with_snapshot = task.kind == TaskKind::run ? 1 : 0;
  out.rdp_ip = parts.access.address;
  out.rdp_port = parts.access.display_port;
  out.web_ip = parts.access.address;
  out.web_port = parts.access.web_port;
  out.display_password = parts.access.display_password;
  if (parts.limits != msg::Limits{}) out.limits = parts.limits;
  if (parts.first_boot != msg::FirstBoot{}) out.first_boot = parts.first_boot;
  return out;
}

msg::ImageVersion named(const Version& version) {
  return {version.imgid, version.version, version.digest, version.size_bytes, version.virtual_size_bytes,
          version.format};
}

void add_database(msg::Command& command, const DatabaseParts& parts) {
  if (parts.source) command.database = named(*parts.source);
  command.database_mode = parts.mode;
  command.database_lost = parts.lost;
  command.database_grant = parts.grant;
  command.database_source_grant = parts.source_grant;
  command.database_target_imgid = parts.target_imgid;
  command.database_target_version = parts.target_version;
  command.database_target_grant = parts.target_grant;
}

}  // namespace

msg::Command make_command(const Task& task, std::string_view op, const CommandParts& parts, std::string cmdid,
                          std::int64_t now_ms, std::int64_t patience_ms) {
  msg::Command command;
  command.op = op;
  command.tid = task.tid;
  command.cmdid = std::move(cmdid);
  command.nid = task.node;
  command.ccid = task.cluster;
  command.epoch = task.epoch;
  command.attempt = task.attempt;
  command.ts = now_ms;
  command.deadline = now_ms + patience_ms;
  if (op == "image/prepare" || op == "image/run" || op == "instance/migrate") {
    if (parts.source) command.source = named(*parts.source);
    command.source_grant = parts.source_grant;
    command.lazy = task.kind == TaskKind::run && task.lazy && op != "instance/migrate" ? 1 : 0;
    if (task.kind == TaskKind::push) {
      command.priority = "prefetch";
    } else {
      command.runtime_option = runtime_option(task, parts);
    }
  }
  if (parts.database) add_database(command, *parts.database);
  command.disk_bytes = parts.disk_bytes;
  if (op == "image/submit" || op == "image/import" || op == "image/blank" || op == "image/use") {
    command.target_imgid = task.dst;
    command.target_version = task.target_version;
    command.target_grant = parts.target_grant;
  }
  // Walrus publishes only if that version is in use still. A build makes an image of its own.
  if (op == "image/submit" && task.kind == TaskKind::modify && !task.replace)
    command.if_current = task.src + "/" + std::to_string(task.source_version);
  if (parts.operation) {
    command.snapshot = parts.operation->snapshot;
    command.with_memory = parts.operation->with_memory ? 1 : 0;
    if (op == "instance/limit") command.limits = parts.operation->limits;
    command.move = parts.operation->move;
  }
  if (op == "image/prune" || op == "image/delete") {
    command.target_imgid = task.dst;
    command.versions = parts.versions;
  }
  return command;
}

std::string mac_of(std::string_view insid) {
  const auto hex = insid.substr(insid.size() - 6);
  return "52:54:00:" + std::string(hex.substr(0, 2)) + ":" + std::string(hex.substr(2, 2)) + ":" +
         std::string(hex.substr(4, 2));
}

}  // namespace educloud::clc
