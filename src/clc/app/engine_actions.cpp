#include "clc/app/engine.hpp"
#include "clc/domain/vm_disks.hpp"
#include "clc/domain/vm_rules.hpp"
#include "clc/store/accounts.hpp"
#include "clc/store/snapshots.hpp"
#include "common/base/ids.hpp"
#include "common/base/random.hpp"
#include "common/obs/log.hpp"
#include "common/transfer/grant.hpp"
#include "common/transfer/receipt.hpp"

namespace educloud::clc {
namespace {

/// Long enough for the largest image over a slow link; a node can do no more with it than fetch that version.
constexpr std::int64_t kGrantSeconds = 6 * 3600;

/// 40 random bits in letters and digits that are not mistaken for each other. VNC takes 8 characters at most.
std::string new_display_password() {
  constexpr std::string_view kLetters = "abcdefghijkmnpqrstuvwxyz23456789";
  static_assert(kLetters.size() == 32);
  const std::string hex = random_hex(8);
  std::string password;
  for (std::size_t i = 0; i < 16; i += 2) {
    const auto digit = [&](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
    password += kLetters[static_cast<std::size_t>(digit(hex[i]) * 16 + digit(hex[i + 1])) % 32];
  }
  return password;
}

}  // namespace

Result<> Engine::send(store::Sql& sql, Task& task, std::string_view op, const std::vector<int>& versions) {
  if (op == "image/submit" || op == "image/import" || op == "image/blank")
    task.target_version = store::take_version_number(sql, task.dst);
  // The overlay that a desktop's snapshots lie in is thrown away when it starts anew.
  if (op == "image/prepare" && task.kind == TaskKind::run) store::remove_snapshots(sql, task.insid);
  // Receivers refuse a command older than the last they took, so one that was held up on its way (a publish
  // that had to be repeated) can not undo a later one. Not by time: clocks jump.
  if (!task.cmdid.empty()) ++task.attempt;
  // A move that came to nothing has left leave to join its disk on its way: from here that is too old.
  if (task.op == "instance/migrate" && op != task.op && !adopts_) ++task.epoch;
  task.op = op;
  task.op_open = true;
  task.gated_at = 0;
  std::int64_t patience = patience_ms(task);
  if (patience == 0) patience = 10 * 60'000;
  auto gathered = parts(sql, task, op, patience);
  if (!gathered) return fail(gathered.error());
  gathered->versions = versions;
  const auto command = make_command(task, op, *gathered, new_command_id().str(), now(), patience);
  task.cmdid = command.cmdid;
  task.command = msg::serialize(command);
  task.seq = -1;  // statuses of this command are ordered among themselves
  task.cmd_sent_at = now();
  task.news_at = task.resends = 0;
  task.deadline_at = patience_ms(task) == 0 ? 0 : now() + patience_ms(task);
  queue_command(sql, task, task.command, command.deadline);
  obs::info("command.queued", {{"tid", task.tid}, {"op", op}, {"cmdid", task.cmdid}, {"node", task.node}});
  return {};
}

Result<CommandParts> Engine::parts(store::Sql& sql, const Task& task, std::string_view op, std::int64_t) {
  CommandParts out;
  const std::int64_t expires_s = now() / 1000 + kGrantSeconds;
  if (auto ok = add_database(sql, task, op, out); !ok) return fail(ok.error());
  if (op == "image/submit") {
    // Signed with the key that nodes do not have: a node must not be able to grant itself other images.
    out.target_grant = transfer::sign_grant(
        options_.data_key,
        {"PUT", transfer::version_path(task.dst, task.target_version), task.node, expires_s});
    return out;
  }
  if (is_operation(op)) out.operation = operation_;
  if (op == "image/blank") {
    const auto server = store::find_image_of_database(sql, task.dst);
    if (!server)
      return fail(ErrorCode::not_found, "the image of disk " + task.dst + " is not there any more");
    out.disk_bytes = std::int64_t{server->database_gib} << 30;
  }
  const bool moves = op == "instance/migrate";
  if (op != "image/prepare" && op != "image/run" && !moves) return out;
  const auto instance = store::find_instance(sql, task.insid);
  const auto image = store::find_image(sql, task.src);
  auto version = store::find_version(sql, task.src, task.source_version);
  const bool has_vm = task.kind != TaskKind::push;
  if (!image || !version || (has_vm && !instance)) {
    return fail(ErrorCode::not_found,
                "the image, version or instance of " + task.tid + " is not there any more");
  }
  out.source = std::move(version);
  out.source_grant = transfer::sign_grant(
      options_.data_key,
      {"GET", transfer::version_path(task.src, task.source_version), task.node, expires_s});
  if (moves) out.access.display_password = store::display_password(sql, task.insid);
  if (!has_vm) return out;
  const auto ostype = store::find_ostype(sql, image->ostype);
  out.memory_mib = instance->memory_mib;
  const auto type = store::find_vmtype(sql, instance->vmtype);
  out.limits = effective_limits(instance->limits, type ? type->limits : msg::Limits{});
  out.first_boot = instance->first_boot;
  out.cpus = instance->cpus;
  out.ostype = image->ostype;
  out.usage = image->usage;
  out.disk_type = ostype ? ostype->disk_type : "sata";
  out.nic_type = ostype ? ostype->nic_type : "e1000";
  out.folder_protocol = !instance->folder_protocol.empty() ? instance->folder_protocol
                        : ostype                           ? ostype->folder_protocol
                                                           : "smb";
  const auto owner = store::find_account(sql, instance->owner);
  auto folders = folders_of(task, image->usage, owner.value_or(Account{instance->owner, false, "", 0}));
  if (!folders) return fail(folders.error());
  out.folders = std::move(*folders);
  if (op == "image/run") {
    auto access = take_access(sql, task);
    if (!access) return fail(access.error());
    out.access = std::move(*access);
  }
  return out;
}

Result<Access> Engine::take_access(store::Sql& sql, const Task& task) {
  Access access;
  // Empty right after a restart of clc, before the node's first heartbeat: then the node takes its own.
  if (const auto beat = heartbeats_.node(task.node, task.cluster)) access.address = beat->status.net_data.ip0;
  access.display_port = store::take_port(sql, task.node, "display", task.insid, options_.display_port_first,
                                         options_.display_port_last);
  access.web_port =
      store::take_port(sql, task.node, "web", task.insid, options_.web_port_first, options_.web_port_last);
  if (access.display_port == 0 || access.web_port == 0) {
    store::free_ports(sql, task.insid);
    return fail(ErrorCode::exhausted, "node " + task.node + " has no free display or web port (ranges " +
                                          std::to_string(options_.display_port_first) + "-" +
                                          std::to_string(options_.display_port_last) + ", " +
                                          std::to_string(options_.web_port_first) + "-" +
                                          std::to_string(options_.web_port_last) +
                                          "): stop a VM or widen them in clc.conf");
  }
  if (adopts_) {
    access.display_password = store::display_password(sql, task.insid);
    // Nobody can tell the one that it has; a command goes with one all the same.
    if (access.display_password.empty()) access.display_password = new_display_password();
    return access;
  }
  access.display_password = new_display_password();
  store::set_display_password(sql, task.insid, access.display_password);
  return access;
}

Result<Version> version_from_receipt(const Task& task, std::string_view receipt, std::string_view data_key) {
  auto told = transfer::verify_receipt(data_key, receipt);
  if (!told) return fail(told.error());
  if (told->imgid != task.dst || told->version != task.target_version || told->cmdid != task.cmdid) {
    return fail(ErrorCode::conflict, "the receipt is about " + told->imgid + " version " +
                                         std::to_string(told->version) + ", expected " + task.dst +
                                         " version " + std::to_string(task.target_version));
  }
  Version version;
  version.imgid = told->imgid;
  version.version = told->version;
  version.digest = told->digest;
  version.size_bytes = told->size_bytes;
  version.virtual_size_bytes = told->virtual_size_bytes;
  version.format = told->format;
  version.parent = task.kind == TaskKind::modify ? task.source_version : 0;
  version.receipt = receipt;
  return version;
}

Result<> Engine::publish_version(store::Sql& sql, Task& task, const msg::TaskStatus* status) {
  auto version = version_from_receipt(task, status ? status->receipt : "", options_.data_key);
  if (!version) return fail(version.error());
  auto image = store::find_image(sql, task.dst);
  if (!image) return fail(ErrorCode::not_found, "image " + task.dst + " is not there any more");
  version->created_at = now();
  if (store::find_version(sql, task.dst, version->version)) {
    return fail(ErrorCode::conflict,
                image->name + " has a version " + std::to_string(version->version) + " already");
  }
  auto database = submitted_database(sql, task, status ? status->database_receipt : "");
  if (!database) return fail(database.error());
  if (*database) {
    add_database_version(sql, **database);
    version->database_version = (*database)->version;
  } else if (const auto parent = store::find_version(sql, task.dst, version->parent)) {
    // Of an image that is a desktop's now: the disk is there still should it be a server's again.
    version->database_version = parent->database_version;
  }
  store::add_version(sql, *version);
  // As walrus does it: of two that were published out of order the later one is in use.
  image->current_version = std::max(image->current_version, version->version);
  store::update_image(sql, *image);
  task.achieved = true;
  if (auto ok = version_published(sql, *image, version->version, task.owner); !ok) return ok;
  store::audit(sql, now(), task.owner, "image.publish", task.dst,
               "version " + std::to_string(version->version) + " digest " + version->digest);
  obs::info("image.published", {{"tid", task.tid}, {"imgid", task.dst}, {"version", version->version}});
  return {};
}

Result<> Engine::finish_upkeep(store::Sql& sql, Task& task) {
  task.achieved = true;
  if (auto image = store::find_image(sql, task.dst)) {
    if (task.kind == TaskKind::use) {
      image->current_version = task.target_version;
      store::update_image(sql, *image);
    } else if (task.kind == TaskKind::prune) {
      for (const auto& one : store::list_versions(sql, task.dst)) {
        if (one.pruning) store::remove_version(sql, task.dst, one.version);
      }
    } else {
      store::remove_image(sql, task.dst);
    }
    if (auto ok = follow_upkeep(sql, task, *image); !ok) return ok;
  }
  const auto gone = task::step(task.state, task::Event::deleted);
  if (!gone) return fail(ErrorCode::internal, "an upkeep task cannot end from here");
  return apply(sql, task, *gone, nullptr);
}

void Engine::release(store::Sql& sql, Task& task) {
  store::free_ports(sql, task.insid);
  const auto instance = store::find_instance(sql, task.insid);
  if (instance && (instance->deleting || !outlives_its_task(task.insid)))
    store::remove_instance(sql, task.insid);
  auto image = store::find_image(sql, task.dst);
  if (!image || task.achieved) return;
  // Given up: an image that never got a version is none, and a mark for upkeep is lifted.
  const bool made_it = task.kind == TaskKind::import || task.kind == TaskKind::build;
  if (made_it && store::list_versions(sql, task.dst).empty()) {
    if (auto server = store::find_image_of_database(sql, task.dst)) {
      server->database_imgid.clear();
      store::update_image(sql, *server);
    }
    const auto disk = store::find_image(sql, image->database_imgid);
    if (disk && disk->current_version == 0) store::remove_image(sql, disk->imgid);
    store::remove_image(sql, task.dst);
  } else if (task.kind == TaskKind::prune) {
    for (const auto& one : store::list_versions(sql, task.dst))
      store::set_pruning(sql, task.dst, one.version, false);
  } else if (task.kind == TaskKind::remove) {
    image->deleting = false;
    store::update_image(sql, *image);
  }
}

}  // namespace educloud::clc
