#include "clc/app/cloud_impl.hpp"
#include "common/transfer/grant.hpp"

namespace educloud::clc {
namespace {

constexpr std::int64_t kMostValidSeconds = 7 * 24 * 3600;

/// Which nodes `request` names, by name. Errors: not_found, invalid_argument, conflict.
Result<std::vector<Node>> nodes_to_push_to(store::Sql& sql, const PushRequest& request) {
  std::vector<Node> out;
  if (request.cluster.empty() == request.nodes.empty())
    return fail(ErrorCode::invalid_argument, "name a 'cluster' or 'nodes'", "nodes");
  if (!request.cluster.empty()) {
    for (auto& node : store::list_nodes(sql)) {
      if (node.cluster == request.cluster) out.push_back(std::move(node));
    }
    const auto clusters = store::list_clusters(sql);
    const bool known = std::any_of(clusters.begin(), clusters.end(),
                                   [&](const auto& one) { return one.host == request.cluster; });
    if (!known) return fail(ErrorCode::not_found, "there is no cluster of that name", "cluster");
    if (out.empty())
      return fail(ErrorCode::conflict, "cluster " + request.cluster + " has no nodes", "cluster");
    return out;
  }
  for (const auto& host : request.nodes) {
    if (auto name = HostName::parse(host); !name) return fail(name.error());
    auto node = store::find_node(sql, host);
    if (!node) return fail(ErrorCode::not_found, "there is no node " + host, "nodes");
    out.push_back(std::move(*node));
  }
  std::sort(out.begin(), out.end(), [](const auto& a, const auto& b) { return a.host < b.host; });
  const auto twice =
      std::unique(out.begin(), out.end(), [](const auto& a, const auto& b) { return a.host == b.host; });
  out.erase(twice, out.end());
  return out;
}

/// What stands against pushing there; an empty result: nothing.
PushItem obstacle(const NodeSnapshot& node, const Version& version, bool named,
                  const PlacementLimits& limits) {
  PushItem item{node.host, "", "", ""};
  const std::int64_t need_mib = (version.size_bytes >> 20) + limits.min_disk_mib;
  const std::int64_t free_mib = node.disk_mib - node.disk_usage_mib;
  if (node.has_image) {
    item.result = "present";
    item.reason = "has it already";
  } else if (node.state != NodeState::enabled && !named) {
    item.result = "disabled";
    item.reason = "takes no new VMs; name it to push to it all the same";
  } else if (node.age_ms < 0 || node.age_ms > limits.max_age_ms) {
    item.result = "down";
    item.reason = node.age_ms < 0 ? "no heartbeat since clc started"
                                  : "last heartbeat " + std::to_string(node.age_ms / 1000) + " s ago";
  } else if (!node.cluster_alive) {
    item.result = "down";
    item.reason = "its cluster controller " + node.cluster + " is silent";
  } else if (free_mib < need_mib) {
    item.result = "no_room";
    item.reason = "needs " + std::to_string(version.size_bytes >> 20) + " MiB and " +
                  std::to_string(limits.min_disk_mib) + " MiB to stay free, has " + std::to_string(free_mib);
  }
  return item;
}

Task push_task(const Principal& who, const Version& version, const NodeSnapshot& node, std::string insid) {
  Task task;
  task.kind = TaskKind::push;
  task.owner = who.account;
  task.src = task.dst = version.imgid;
  task.insid = std::move(insid);
  task.tid = version.imgid + ":" + version.imgid + ":" + task.insid;
  task.node = node.host;
  task.cluster = node.cluster;
  task.source_version = version.version;
  return task;
}

}  // namespace

Result<Version> Cloud::Impl::version_of(store::Sql& sql, const Image& image, int version) {
  if (image.deleting) return fail(ErrorCode::conflict, "image " + image.name + " is being deleted");
  const int wanted = version == 0 ? image.current_version : version;
  if (wanted == 0) return fail(ErrorCode::conflict, "image " + image.name + " has no version yet");
  auto found = store::find_version(sql, image.imgid, wanted);
  if (!found) {
    return fail(ErrorCode::not_found, "image " + image.name + " has no version " + std::to_string(wanted),
                "version");
  }
  if (found->pruning)
    return fail(ErrorCode::conflict, "version " + std::to_string(wanted) + " is being removed", "version");
  if (auto ok = check_format(*found); !ok) return fail(ok.error());
  return std::move(*found);
}

Result<PushView> Cloud::push_image(const Principal& who, std::string_view imgid, const PushRequest& request) {
  auto& impl = *impl_;
  return impl.store.write([&](store::Sql& sql) -> Result<PushView> {
    auto image = impl.image(sql, who, Deed::push_image, imgid);
    if (!image) return fail(image.error());
    auto version = impl.version_of(sql, *image, request.version);
    if (!version) return fail(version.error());
    auto nodes = nodes_to_push_to(sql, request);
    if (!nodes) return fail(nodes.error());
    std::map<std::string, std::string> under_way;
    for (const auto& task : store::open_tasks_of_image(sql, image->imgid)) {
      const bool same = task.kind == TaskKind::push && task.source_version == version->version;
      if (same && task.state.phase == task::Phase::preparing) under_way[task.node] = task.tid;
    }
    const auto& limits = impl.options.placement;
    PushView out{image->imgid, version->version, {}};
    for (const auto& node :
         impl.heartbeats.snapshots(*nodes, image->imgid, version->version, limits.max_age_ms)) {
      auto item = obstacle(node, *version, !request.nodes.empty(), limits);
      if (const auto at = under_way.find(node.host); at != under_way.end()) {
        item = {node.host, "under_way", at->second, "is being brought there already"};
      } else if (item.result.empty()) {
        const auto insid = impl.free_instance_id(sql, InstanceKind::TMP).str();
        auto task = impl.engine.begin(sql, push_task(who, *version, node, insid));
        if (!task) return fail(task.error());
        item.result = "started";
        item.tid = task->tid;
      }
      out.items.push_back(std::move(item));
    }
    impl.audit(
        sql, who, "image.push", image->imgid,
        "version " + std::to_string(version->version) + " to " + std::to_string(out.items.size()) + " nodes");
    return out;
  });
}

Result<VersionUrl> Cloud::version_url(const Principal& who, std::string_view imgid, int version,
                                      std::int64_t valid_s) {
  auto& impl = *impl_;
  if (valid_s < 60 || valid_s > kMostValidSeconds) {
    return fail(ErrorCode::invalid_argument,
                "'valid_s' must be 60 to " + std::to_string(kMostValidSeconds) + " seconds", "valid_s");
  }
  // A write, for the audit: who may read a disk's content is worth knowing later.
  return impl.store.write([&](store::Sql& sql) -> Result<VersionUrl> {
    auto image = impl.image(sql, who, Deed::export_image, imgid);
    if (!image) return fail(image.error());
    auto found = impl.version_of(sql, *image, version);
    if (!found) return fail(found.error());
    const std::int64_t expires_s = impl.clock.wall_ms() / 1000 + valid_s;
    const std::string path = transfer::version_path(found->imgid, found->version);
    const transfer::Grant grant{"GET", path, std::string(transfer::kUserNode), expires_s};
    VersionUrl out;
    out.imgid = found->imgid;
    out.version = found->version;
    out.url = impl.options.walrus_url + path + "/raw";
    out.manifest_url = impl.options.walrus_url + path + "/manifest";
    out.query = transfer::sign_grant(impl.options.data_key, grant);
    out.expires = expires_s * 1000;
    out.digest = found->digest;
    out.size_bytes = found->size_bytes;
    out.virtual_size_bytes = found->virtual_size_bytes;
    impl.audit(sql, who, "image.url", image->imgid, "version " + std::to_string(found->version));
    return out;
  });
}

}  // namespace educloud::clc
