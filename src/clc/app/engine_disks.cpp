// Database disks of servers, and the hidden images whose versions they are made from and become.
#include "clc/app/engine.hpp"
#include "clc/domain/vm_disks.hpp"
#include "clc/store/accounts.hpp"
#include "common/base/ids.hpp"
#include "common/obs/log.hpp"
#include "common/transfer/grant.hpp"

namespace educloud::clc {

using task::Event;

namespace {

constexpr std::string_view kWho = "clc";
/// Names in one command, which has to stay small.
constexpr std::size_t kMostLost = 500;

/// To read or make a version, or to move: long enough for the largest disk over a slow link.
constexpr std::int64_t kVersionSeconds = 6 * 3600;
/// To open and close a disk: worth nothing once another epoch has it, and a server runs for weeks before its
/// node closes it.
constexpr std::int64_t kDiskSeconds = 90 * 24 * 3600;

/// At its cc.
std::string disk_path(const std::string& insid, std::int64_t epoch) {
  return "/disks/" + insid + "/" + std::to_string(epoch);
}

}  // namespace

bool Engine::has_disk(store::Sql& sql, const Task& task) const {
  if (is_walrus_task(task.kind)) return false;
  const auto image = store::find_image(sql, task.src);
  return has_database_disk(task, image ? image->usage : "");
}

std::string Engine::disk_grant(const std::string& insid, std::int64_t epoch, const std::string& node) const {
  return transfer::sign_grant(options_.data_key,
                              {"PUT", disk_path(insid, epoch), node, now() / 1000 + kDiskSeconds});
}

std::string Engine::disk_move_grant(const std::string& insid, std::int64_t epoch,
                                    const std::string& node) const {
  const std::string path = disk_path(insid, epoch) + "/move";
  return transfer::sign_grant(options_.data_key, {"PUT", path, node, now() / 1000 + kVersionSeconds});
}

Result<Version> Engine::database_version(store::Sql& sql, const Image& image, const Version& version) const {
  const auto disk = store::find_image(sql, image.database_imgid);
  auto found =
      disk ? store::find_version(sql, disk->imgid, version.database_version) : std::optional<Version>();
  if (found && !found->pruning) return std::move(*found);
  const bool is_being_made = disk && disk->current_version == 0;
  return fail(ErrorCode::conflict,
              "version " + std::to_string(version.version) + " of image " + image.name +
                  " has no disk for a server's data" +
                  (is_being_made ? " yet: it is being made, see educloud task list"
                                 : ": educloud image set " + image.imgid + " --usage server"));
}

/// What `op` needs of the VM's database disk.
Result<> Engine::add_database(store::Sql& sql, const Task& task, std::string_view op, CommandParts& out) {
  const bool moves = op == "instance/migrate";
  const bool starts = op == "image/prepare" || op == "image/run" || moves;
  const bool uses = starts || op == "image/stop" || op == "image/submit";
  if ((!uses && op != "task/delete") || !has_disk(sql, task)) return {};
  if (op == "task/delete" && !disk_goes(sql, task)) return {};
  DatabaseParts parts;
  if (const auto cluster = store::find_cluster(sql, task.cluster)) parts.mode = cluster->database_mode;
  if (starts) {
    for (const auto& one : store::list_nodes(sql)) {
      // One that was moved to another cluster cannot give anything back to this one's cc.
      const bool is_gone = parts.mode == "copy" && one.cluster != task.cluster;
      const bool is_lost = one.cluster == task.cluster && one.lost_at > 0;
      if ((is_lost || is_gone) && parts.lost.size() < kMostLost) parts.lost.push_back(one.host);
    }
  }
  // The node that it comes to is given its own.
  if (!moves) parts.grant = disk_grant(task.insid, task.epoch, task.node);
  const std::string node = moves && operation_ && operation_->move ? operation_->move->nid : task.node;
  if (starts || op == "image/submit") {
    const auto image = store::find_image(sql, task.src);
    const auto version = store::find_version(sql, task.src, task.source_version);
    if (!image || !version)
      return fail(ErrorCode::not_found, "the image or version of " + task.tid + " is not there any more");
    auto source = database_version(sql, *image, *version);
    if (!source) return fail(source.error());
    parts.source = std::move(*source);
  }
  const std::int64_t expires_s = now() / 1000 + kVersionSeconds;
  const auto sign = [&](const char* method, const std::string& imgid, int version) {
    return transfer::sign_grant(options_.data_key,
                                {method, transfer::version_path(imgid, version), node, expires_s});
  };
  if (starts) parts.source_grant = sign("GET", parts.source->imgid, parts.source->version);
  if (op == "image/submit") {
    const auto target = store::find_image(sql, task.dst);
    if (!target || target->database_imgid.empty())
      return fail(ErrorCode::conflict, "image " + task.dst + " has no place for its database disk");
    parts.target_imgid = target->database_imgid;
    parts.target_version = store::take_version_number(sql, target->database_imgid);
    parts.target_grant = sign("PUT", parts.target_imgid, parts.target_version);
  }
  out.database = std::move(parts);
  return {};
}

/// True if nobody needs the disk once `task` has ended.
bool Engine::disk_goes(store::Sql& sql, const Task& task) const {
  if (!outlives_its_task(task.insid)) return true;
  const auto instance = store::find_instance(sql, task.insid);
  return !instance || instance->deleting;
}

/// From its first use on a server runs where its disk is.
void Engine::note_disk(store::Sql& sql, const Task& task, Event event) {
  const bool is_made = event == Event::prepared || event == Event::booting || event == Event::running;
  if (!is_made || task.kind != TaskKind::run || !has_database_disk(task, "")) return;
  const auto instance = store::find_instance(sql, task.insid);
  if (instance && instance->disk_cluster.empty()) store::set_disk_cluster(sql, task.insid, task.cluster);
}

Result<Task> Engine::remove_disk(store::Sql& sql, Task task) {
  std::optional<Node> chosen;
  for (auto& node : store::list_nodes(sql)) {
    if (node.cluster != task.cluster || node.lost_at > 0 || node.host == task.node) continue;
    const auto beat = heartbeats_.node(node.host, node.cluster);
    if (beat && beat->age_ms <= options_.placement.max_age_ms) chosen = std::move(node);
    if (chosen) break;
  }
  if (!chosen) {
    return fail(ErrorCode::unavailable, "the database disk of " + task.insid + " lies in cluster " +
                                            task.cluster + ", where no node is up to remove it");
  }
  Task remover;
  remover.tid = task.tid;
  remover.kind = task.kind;
  remover.owner = task.owner;
  remover.src = task.src;
  remover.dst = task.dst;
  remover.insid = task.insid;
  remover.state = {task::Phase::editing, task::State::deleting};
  remover.node = chosen->host;
  remover.cluster = chosen->cluster;
  remover.source_version = task.source_version;
  remover.created_at = remover.updated_at = now();
  if (const auto earlier = store::find_task(sql, task.tid)) remover.epoch = earlier->epoch + 1;
  remover.id = store::add_task(sql, remover);
  if (auto sent = send(sql, remover, "task/delete"); !sent) return fail(sent.error());
  store::update_task(sql, remover);
  changed(sql, remover);
  return remover;
}

/// For a task that has ended without its node: what that would have removed is removed by another one.
void Engine::remove_left_disk(store::Sql& sql, const Task& task) {
  const auto begun = remove_disk(sql, task);
  if (begun) return;
  store::audit(sql, now(), kWho, "disk.left", task.insid, begun.error().message);
  obs::warn("disk.left", {{"tid", task.tid}, {"cluster", task.cluster}, {"error", begun.error().message}});
}

Result<std::optional<Version>> Engine::submitted_database(store::Sql& sql, const Task& task,
                                                          std::string_view receipt) const {
  if (!has_disk(sql, task)) return std::nullopt;
  const auto image = store::find_image(sql, task.dst);
  const auto source = store::find_version(sql, task.src, task.source_version);
  const auto command = msg::parse<msg::Command>(task.command);
  if (!image || !source || !command)
    return fail(ErrorCode::not_found, "the image or version of " + task.tid + " is not there any more");
  Task disk = task;
  disk.dst = image->database_imgid;
  disk.target_version = command->database_target_version;
  disk.source_version = source->database_version;
  auto version = version_from_receipt(disk, receipt, options_.data_key);
  if (!version) return fail(version.error(), "its database disk");
  version->created_at = now();
  return std::optional<Version>(std::move(*version));
}

void Engine::add_database_version(store::Sql& sql, const Version& version) {
  auto disk = store::find_image(sql, version.imgid);
  if (!disk) return;
  store::add_version(sql, version);
  disk->current_version = std::max(disk->current_version, version.version);
  store::update_image(sql, *disk);
}

/// A server's image and its database disk find each other.
Result<> Engine::version_published(store::Sql& sql, const Image& image, int version,
                                   const std::string& owner) {
  if (image.usage == "database") {
    auto server = store::find_image_of_database(sql, image.imgid);
    if (!server) return {};
    server->usage = "server";
    store::update_image(sql, *server);
    store::give_database(sql, server->imgid, version);
    return {};
  }
  if (image.usage != "server" || !image.database_imgid.empty()) return {};
  auto begun = begin_database(sql, image, owner);
  return begun ? Result<>{} : fail(begun.error());
}

Image Engine::add_database_image(store::Sql& sql, const Image& image) {
  Image disk = image;
  disk.imgid = new_image_id().str();
  while (store::find_image(sql, disk.imgid)) disk.imgid = new_image_id().str();
  disk.name = disk.imgid + " database";  // nobody sees it, but names are unique
  disk.usage = "database";
  disk.description = "database disk of " + image.imgid;
  disk.current_version = disk.database_gib = 0;
  disk.next_version = 1;
  disk.database_imgid.clear();
  disk.created_at = now();
  store::add_image(sql, disk);
  return disk;
}

/// A task of walrus about `imgid`.
Task Engine::upkeep_of(store::Sql& sql, TaskKind kind, const std::string& imgid, const std::string& owner) {
  Task task;
  task.kind = kind;
  task.owner = owner;
  task.src = task.dst = imgid;
  task.insid = new_instance_id(InstanceKind::TMP).str();
  while (store::find_instance(sql, task.insid) || store::open_task_of_instance(sql, task.insid))
    task.insid = new_instance_id(InstanceKind::TMP).str();
  task.tid = imgid + ":" + imgid + ":" + task.insid;
  task.state = {task::Phase::submitting, task::State::init};
  return task;
}

Result<Task> Engine::begin_database(store::Sql& sql, Image image, const std::string& owner) {
  if (image.database_gib == 0) image.database_gib = kDatabaseGib;
  const auto disk = add_database_image(sql, image);
  image.database_imgid = disk.imgid;
  store::update_image(sql, image);
  return begin(sql, upkeep_of(sql, TaskKind::import, disk.imgid, owner));
}

/// What was done to a server's image is done to its database disk's versions too, by a task of its own.
/// `image`: as it is after `task`; of a removed one as it was.
Result<> Engine::follow_upkeep(store::Sql& sql, const Task& task, const Image& image) {
  auto disk = store::find_image(sql, image.database_imgid);
  if (!disk) return {};
  std::vector<int> spare;
  Task next = upkeep_of(sql, task.kind, disk->imgid, task.owner);
  if (task.kind == TaskKind::use) {
    const auto version = store::find_version(sql, image.imgid, image.current_version);
    next.target_version = version ? version->database_version : 0;
    if (next.target_version == 0 || next.target_version == disk->current_version) return {};
  } else if (task.kind == TaskKind::prune) {
    // Versions of the image may share one.
    spare = store::spare_database_versions(sql, image.imgid, *disk);
    if (spare.empty()) return {};
    for (const int version : spare) store::set_pruning(sql, disk->imgid, version, true);
  } else {
    disk->deleting = true;
    store::update_image(sql, *disk);
  }
  auto begun = begin(sql, std::move(next), spare);
  return begun ? Result<>{} : fail(begun.error());
}

}  // namespace educloud::clc
