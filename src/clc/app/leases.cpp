#include "clc/app/leases.hpp"

#include "common/base/ids.hpp"
#include "common/msg/lease.hpp"
#include "common/obs/log.hpp"
#include "common/obs/metrics.hpp"

namespace educloud::clc {
namespace {

constexpr std::size_t kGrantsPerMessage = 500;  ///< under 64 KiB
/// A grant counts from when it comes: one that was held up must not.
constexpr std::chrono::seconds kExpiration{10};

}  // namespace

Result<> Leases::tick() {
  const std::int64_t now = clock_.boot_ms();
  // We were stopped, or could not hear: the nodes get their full time from now on.
  if (now - ticked_at_ > kOwnGapMs || !bus_.is_ready()) watching_since_ = now;
  ticked_at_ = now;
  auto nodes =
      store_.read([](store::Sql& sql) -> Result<std::vector<Node>> { return store::list_nodes(sql); });
  if (!nodes) return fail(nodes.error());
  if (now - granted_at_ >= kGrantEveryMs && bus_.is_ready()) {
    granted_at_ = now;
    grant(*nodes);
  }
  return judge(*nodes);
}

std::int64_t Leases::silence_ms(const Node& node) const {
  return std::min(heartbeats_.silence_ms(node.host, node.cluster), clock_.boot_ms() - watching_since_);
}

void Leases::grant(const std::vector<Node>& nodes) {
  std::map<std::string, std::vector<msg::LeaseGrant>> by_cluster;
  for (const auto& node : nodes) {
    if (!heartbeats_.is_heard(node.host, node.cluster, kSuspectMs)) continue;
    by_cluster[node.cluster].push_back({node.host, node.lease_epoch});
  }
  for (auto& [cluster, grants] : by_cluster) {
    // A cc that is away would only collect them.
    if (heartbeats_.cluster_heard_for_ms(cluster) == 0) continue;
    while (!grants.empty()) {
      const auto most = static_cast<std::ptrdiff_t>(std::min(grants.size(), kGrantsPerMessage));
      send(cluster, {grants.begin(), grants.begin() + most});
      grants.erase(grants.begin(), grants.begin() + most);
    }
  }
}

void Leases::send(const std::string& cluster, std::vector<msg::LeaseGrant> grants) {
  msg::Lease lease;
  lease.ccid = cluster;
  lease.ts = clock_.wall_ms();
  lease.grants = std::move(grants);
  bus::Outgoing message{"cc_cmd", cluster, msg::serialize(lease), new_command_id().str(), kExpiration};
  // Not through the outbox: the next one is better than a late one.
  const auto queued = bus_.publish(std::move(message), [](bus::Outcome outcome) {
    obs::metrics().count("educloud_clc_leases_total", "Messages with grants, by what became of them", 1,
                         {{"result", outcome == bus::Outcome::confirmed ? "confirmed" : "failed"}});
  });
  if (!queued) obs::warn("lease.not_sent", {{"cluster", cluster}, {"error", queued.error().message}});
}

Result<> Leases::judge(const std::vector<Node>& nodes) {
  int lost = 0;
  for (const auto& node : nodes) {
    const auto silence = silence_ms(node);
    if (silence <= kSuspectMs) {
      suspects_.erase(node.host);
    } else if (suspects_.insert(node.host).second) {
      obs::warn("node.suspect", {{"node", node.host}, {"silent_s", silence / 1000}});
    }
    lost += node.lost_at > 0 ? 1 : 0;
    if (silence <= kLostMs) continue;
    if (node.lost_at == 0) {
      auto done = store_.write([&](store::Sql& sql) { return engine_.lose_node(sql, node.host); });
      if (!done) return done;
    }
    if (heartbeats_.cluster_heard_for_ms(node.cluster) < kSettleMs) continue;
    if (auto ok = bring_on(node); !ok) return ok;
  }
  if (lost == 0) searches_.clear();
  obs::metrics().gauge("educloud_clc_nodes_lost", "Nodes that are lost now", lost);
  return {};
}

Result<> Leases::bring_on(const Node& node) {
  auto tasks = store_.read([&](store::Sql& sql) -> Result<std::vector<Task>> {
    return store::open_tasks_of_node(sql, node.host);
  });
  if (!tasks) return fail(tasks.error());
  for (const auto& task : *tasks) {
    if (task.cluster != node.cluster || lost_plan(task) == LostPlan::nothing) continue;
    // One task that cannot be moved must not hold up the others.
    if (auto ok = bring_on(task); !ok)
      obs::error("task.not_relocated", {{"tid", task.tid}, {"error", ok.error().message}});
  }
  return {};
}

Result<> Leases::bring_on(const Task& seen) {
  auto& search = searches_[seen.id];
  const std::int64_t now = clock_.boot_ms();
  if (search.next_at > now) return {};
  search.next_at = now + relocate_after_ms(search.tries++);
  const bool is_last = search.tries >= kRelocateTries;
  auto done = store_.write([&](store::Sql& sql) -> Result<bool> {
    const auto task = store::find_task_by_row(sql, seen.id);
    if (!task || task->updated_at != seen.updated_at || task->cmdid != seen.cmdid) return false;
    return engine_.relocate(sql, *task, is_last);
  });
  if (!done) return fail(done.error());
  if (*done) searches_.erase(seen.id);
  return {};
}

}  // namespace educloud::clc
