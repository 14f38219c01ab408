#include "clc/app/cloud_impl.hpp"
#include "common/obs/log.hpp"

namespace educloud::clc {
namespace {

NodeView node_view(const std::string& host, const std::string& cluster,
                   const std::optional<Heartbeats::NodeBeat>& beat, std::int64_t max_age_ms) {
  NodeView view;
  view.host = host;
  view.cluster = cluster;
  if (!beat) return view;
  const auto& status = beat->status;
  view.age_ms = beat->age_ms;
  view.alive = beat->age_ms <= max_age_ms;
  view.started_at = status.service_data.started_at;
  view.booted_at = status.service_data.booted_at;
  view.hypervisor = status.service_data.hypervisor;
  view.version = status.service_data.version;
  view.address = status.net_data.ip0;
  view.warnings = status.service_data.warnings;
  view.cpus = status.hardware_data.cpus;
  view.cpu_usage = status.hardware_data.cpu_usage;
  view.mem_mib = status.hardware_data.mem;
  view.mem_usage_mib = status.hardware_data.mem_usage;
  view.disk_mib = status.hardware_data.disk;
  view.disk_usage_mib = status.hardware_data.disk_usage;
  view.vms = msg::encode(status.vm_data);
  view.images = msg::encode(status.images);
  return view;
}

}  // namespace

Result<Page<NodeView>> Cloud::nodes(const Principal& who) {
  if (auto ok = check(who, Deed::see_nodes, "", "nodes"); !ok) return fail(ok.error());
  auto& impl = *impl_;
  return impl.store.read([&](store::Sql& sql) -> Result<Page<NodeView>> {
    Page<NodeView> page;
    const auto max_age_ms = impl.options.placement.max_age_ms;
    const auto nodes = store::list_nodes(sql);
    std::map<std::string, NodeFacts> facts;
    for (auto& one :
         facts_of(impl.heartbeats.snapshots(nodes, "", 0, max_age_ms), store::reservations(sql), ""))
      facts.emplace(one.host, one);
    std::map<std::pair<std::string, std::string>, bool> known;
    for (const auto& node : nodes) {
      known[{node.cluster, node.host}] = true;
      auto view =
          node_view(node.host, node.cluster, impl.heartbeats.node(node.host, node.cluster), max_age_ms);
      view.state = node.state;
      view.lost_at = node.lost_at;
      view.lease_epoch = node.lease_epoch;
      view.committed_mib = facts[node.host].committed_mib;
      view.committed_cpus = facts[node.host].committed_cpus;
      page.items.push_back(std::move(view));
    }
    // Whoever knocks without being registered is shown, so that the operator sees why it gets no work.
    for (const auto& beat : impl.heartbeats.nodes()) {
      if (known.contains({beat.cluster, beat.status.host})) continue;
      auto view = node_view(beat.status.host, beat.cluster, beat, max_age_ms);
      view.registered = false;
      view.state = NodeState::no_new;
      page.items.push_back(std::move(view));
    }
    return page;
  });
}

Result<NodeView> Cloud::node(const Principal& who, std::string_view host) {
  if (auto name = HostName::parse(host); !name) return fail(name.error());
  auto all = nodes(who);
  if (!all) return fail(all.error());
  for (auto& one : all->items) {
    if (one.host == host) return std::move(one);
  }
  return fail(ErrorCode::not_found, "there is no node " + std::string(host));
}

Result<NodeView> Cloud::set_node_state(const Principal& who, std::string_view host, NodeState state) {
  auto& impl = *impl_;
  if (auto name = HostName::parse(host); !name) return fail(name.error());
  auto changed = impl.store.write([&](store::Sql& sql) -> Result<> {
    if (auto ok = check(who, Deed::change_nodes, "", "node " + std::string(host)); !ok) return ok;
    auto node = store::find_node(sql, host);
    if (!node) return fail(ErrorCode::not_found, "there is no node " + std::string(host));
    if (node->state == state) return {};
    node->state = state;
    store::update_node(sql, *node);
    impl.audit(sql, who, "node.state", host, to_string(state));
    obs::info("node.state", {{"node", host}, {"state", to_string(state)}, {"by", who.account}});
    if (state == NodeState::drained) return impl.engine.drain(sql);
    impl.engine.end_drain(sql, node->host);
    return {};
  });
  if (!changed) return fail(changed.error());
  return node(who, host);
}

std::vector<ClusterView> Cloud::Impl::cluster_views(store::Sql& sql) {
  const auto max_age_ms = options.placement.max_age_ms;
  std::vector<ClusterView> out;
  for (const auto& cluster : store::list_clusters(sql)) {
    auto& one = out.emplace_back();
    one.host = cluster.host;
    one.database_mode = cluster.database_mode;
    if (const auto beat = heartbeats.cluster(cluster.host)) {
      one.age_ms = beat->age_ms;
      one.alive = beat->age_ms <= max_age_ms;
      one.version = beat->status.service_data.version;
      one.address = beat->status.net_data.ip0 + ":" + std::to_string(beat->status.service_data.data_port);
    }
  }
  for (const auto& node : store::list_nodes(sql)) {
    const auto at =
        std::find_if(out.begin(), out.end(), [&](const auto& one) { return one.host == node.cluster; });
    if (at == out.end()) continue;
    const auto beat = heartbeats.node(node.host, node.cluster);
    ++at->nodes;
    if (beat && beat->age_ms <= max_age_ms) ++at->nodes_alive;
  }
  return out;
}

Result<Page<ClusterView>> Cloud::clusters(const Principal& who) {
  if (auto ok = check(who, Deed::see_nodes, "", "clusters"); !ok) return fail(ok.error());
  return impl_->store.read([&](store::Sql& sql) -> Result<Page<ClusterView>> {
    return Page<ClusterView>{impl_->cluster_views(sql), ""};
  });
}

Result<ClusterView> Cloud::set_database_mode(const Principal& who, std::string_view host,
                                             std::string_view mode) {
  if (auto name = HostName::parse(host); !name) return fail(name.error());
  if (mode != "iscsi" && mode != "nbd" && mode != "copy")
    return fail(ErrorCode::invalid_argument, "'database_mode' must be iscsi, nbd or copy", "database_mode");
  auto changed = impl_->store.write([&](store::Sql& sql) -> Result<> {
    if (auto ok = check(who, Deed::change_nodes, "", "cluster " + std::string(host)); !ok) return ok;
    if (!store::find_cluster(sql, host))
      return fail(ErrorCode::not_found, "there is no cluster " + std::string(host));
    store::set_database_mode(sql, host, mode);
    impl_->audit(sql, who, "cluster.database_mode", host, mode);
    return {};
  });
  if (!changed) return fail(changed.error());
  auto all = clusters(who);
  if (!all) return fail(all.error());
  for (auto& one : all->items) {
    if (one.host == host) return std::move(one);
  }
  return fail(ErrorCode::not_found, "there is no cluster " + std::string(host));
}

}  // namespace educloud::clc
