#include "clc/app/engine.hpp"
#include "clc/domain/vm_disks.hpp"
#include "clc/store/placements.hpp"

namespace educloud::clc {
namespace {

tl::unexpected<Error> vanished(std::string_view what) {
  return fail(ErrorCode::not_found, std::string(what) + " is not there any more");
}

}  // namespace

/// Gives `task` a node and the version to start from. Each decision goes into the ledger; one that was
/// refused is handed out besides (take_refused), since its transaction may not last.
Result<> Engine::place(store::Sql& sql, Task& task) {
  const auto instance = store::find_instance(sql, task.insid);
  if (!instance) return vanished("instance " + task.insid);
  const auto image = store::find_image(sql, task.src);
  if (!image) return vanished("image " + task.src);
  // An edited image stays on the version and node its overlay belongs to.
  const bool bound = task.kind != TaskKind::run && !task.node.empty();
  const int wanted =
      bound ? task.source_version : (instance->version != 0 ? instance->version : image->current_version);
  const auto version = store::find_version(sql, task.src, wanted);
  if (!version || version->pruning) {
    return fail(ErrorCode::conflict,
                wanted == 0 ? "image " + image->name + " has no version yet: its import has not ended"
                            : "image " + image->name + " has no version " + std::to_string(wanted));
  }
  if (auto ok = check_format(*version); !ok) return ok;
  const bool is_server = has_database_disk(task, image->usage);
  if (is_server) {
    if (auto disk = database_version(sql, *image, *version); !disk) return fail(disk.error());
  }
  const auto limits = is_server ? server_limits(options_.placement) : options_.placement;
  Decision decision{now(), task.tid, task.owner, task.src, wanted, {}, limits, {}, {}, 0};
  auto& request = decision.request;
  request.insid = task.insid;
  request.memory_mib = instance->memory_mib;
  request.cpus = instance->cpus;
  request.image_mib = version->size_bytes >> 20;
  request.cluster_pin = bound ? "" : instance->cluster_pin;
  request.node_pin = bound ? task.node : instance->node_pin;
  request.disk_cluster = instance->disk_cluster;
  auto nodes = facts_of(heartbeats_.snapshots(store::list_nodes(sql), task.src, wanted, limits.max_age_ms),
                        store::reservations(sql), task.insid);
  if (const auto* chosen = choose(nodes, request, limits)) {
    task.node = decision.chosen = chosen->host;
    task.cluster = chosen->cluster;
    task.source_version = wanted;
    task.placement = chosen->host + ": chosen, " + explain(*chosen, request, limits).reason + " (policy " +
                     std::string(to_string(limits.policy)) + ")\n";
    set_nodes(decision, std::move(nodes));
    store::put_placement(sql, decision);
    return {};
  }
  const auto error = refusal(decide(nodes, request, limits), request);
  set_nodes(decision, std::move(nodes));
  store::put_placement(sql, decision);
  refused_ = std::move(decision);
  return fail(error);
}

std::optional<Decision> Engine::take_refused() {
  return std::exchange(refused_, std::nullopt);
}

}  // namespace educloud::clc
