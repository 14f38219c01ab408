#include "clc/app/reconciler.hpp"

#include "clc/store/accounts.hpp"
#include "common/base/ids.hpp"
#include "common/obs/log.hpp"
#include "common/obs/metrics.hpp"

namespace educloud::clc {
namespace {

constexpr std::int64_t kPortLookMs = 60'000;
constexpr std::size_t kNodes = 4000;  ///< rounds kept at once

void count(std::string_view what, std::string_view kind) {
  obs::metrics().count("educloud_clc_reconciled_total",
                       "Differences between nodes' inventories and tasks, by what was done", 1,
                       {{"kind", std::string(kind)}, {"result", std::string(what)}});
}

Knowledge read_knowledge(store::Sql& sql, const Holdings& holdings) {
  Knowledge out;
  out.here = store::open_tasks_of_node(sql, holdings.host);
  std::erase_if(out.here, [&](const Task& task) { return task.cluster != holdings.cluster; });
  for (const auto& task : out.here) out.by_tid.emplace(task.tid, task);
  const auto look_up = [&](const std::string& tid) {
    if (out.by_tid.contains(tid)) return;
    if (auto task = store::find_task(sql, tid)) out.by_tid.emplace(tid, std::move(*task));
  };
  for (const auto& vm : holdings.vms) look_up(vm.tid);
  // A node remembers for a week what it has deleted.
  for (const auto& told : holdings.tasks) {
    if (told.op != "task/delete") look_up(told.tid);
  }
  return out;
}

bool runs_strangers(const Holdings& holdings, const Knowledge& knowledge) {
  return std::any_of(holdings.vms.begin(), holdings.vms.end(), [&](const msg::InventoryVm& vm) {
    const auto task = knowledge.by_tid.find(vm.tid);
    return vm.state != "shutoff" && task != knowledge.by_tid.end() &&
           (task->second.node != holdings.host || task->second.state.state == task::State::gone);
  });
}

}  // namespace

void Reconciler::take(msg::Inventory part) {
  const std::scoped_lock guard(mutex_);
  const NodeKey key{part.ccid, part.host};
  if (part.parts > kMaxParts || part.part > part.parts) return count("refused", "round");
  if (!rounds_.contains(key) && rounds_.size() >= kNodes) return count("refused", "round");
  Round& round = rounds_[key];
  if (round.id != part.round) round = {part.round, {}, {part.host, part.ccid, part.lease_epoch, {}, {}}};
  if (!round.parts.insert(part.part).second) return;
  auto& holdings = round.holdings;
  std::move(part.vms.begin(), part.vms.end(), std::back_inserter(holdings.vms));
  std::move(part.tasks.begin(), part.tasks.end(), std::back_inserter(holdings.tasks));
  if (static_cast<int>(round.parts.size()) < part.parts) return;
  ready_[key] = std::move(holdings);
  rounds_.erase(key);
}

Result<> Reconciler::run() {
  std::map<NodeKey, Holdings> ready;
  {
    const std::scoped_lock guard(mutex_);
    ready.swap(ready_);
  }
  for (const auto& [key, holdings] : ready) {
    // What one node says must not hold up the others.
    if (auto ok = compare(holdings); !ok)
      obs::error("reconcile.failed", {{"node", key.second}, {"error", ok.error().message}});
  }
  if (clock_.boot_ms() - ports_at_boot_ms_ < kPortLookMs) return {};
  ports_at_boot_ms_ = clock_.boot_ms();
  return sweep_ports();
}

Result<> Reconciler::compare(const Holdings& holdings) {
  std::optional<Node> node;
  auto knowledge = store_.read([&](store::Sql& sql) -> Result<Knowledge> {
    node = store::find_node(sql, holdings.host);
    return read_knowledge(sql, holdings);
  });
  if (!knowledge) return fail(knowledge.error());
  if (!node || node->cluster != holdings.cluster) {
    count("ignored", "round");
    return {};
  }
  count("compared", "round");
  std::erase_if(let_go_, [&](const auto& one) { return one.second.node == holdings.host; });
  for (const auto& tid : let_go(holdings, *knowledge, clock_.wall_ms()))
    let_go_[tid] = {holdings.host, knowledge->by_tid.at(tid).cmdid};
  for (const auto& [tid, task] : knowledge->by_tid) {
    const auto at = let_go_.find(tid);
    if (at != let_go_.end() && at->second == LetGo{task.node, task.cmdid}) knowledge->let_go.insert(tid);
  }
  const auto fixes = due(holdings, reconcile(holdings, *knowledge, clock_.wall_ms()));
  if (!fixes.empty()) {
    if (auto ok = mend(holdings, fixes, *knowledge); !ok) return ok;
  }
  if (holdings.lease_epoch > node->lease_epoch) {
    // Ours is of an older database; a grant with it would not count there.
    return store_.write([&](store::Sql& sql) -> Result<> {
      auto now = store::find_node(sql, holdings.host);
      if (!now || now->lease_epoch >= holdings.lease_epoch) return {};
      now->lease_epoch = holdings.lease_epoch;
      store::update_node(sql, *now);
      return {};
    });
  }
  // Only a round that was taken after the node had heard of its loss shows that it is back.
  // What still runs there of tasks that went elsewhere has ports and memory that nobody counts.
  if (node->lost_at == 0 || holdings.lease_epoch < node->lease_epoch || runs_strangers(holdings, *knowledge))
    return {};
  return store_.write([&](store::Sql& sql) { return engine_.node_back(sql, holdings.host); });
}

std::vector<Fix> Reconciler::due(const Holdings& holdings, std::vector<Fix> fixes) {
  const NodeKey key{holdings.cluster, holdings.host};
  const std::int64_t now = clock_.boot_ms();
  std::erase_if(farewells_, [&](const auto& one) { return now - one.second >= kFarewellMs; });
  std::map<std::pair<NodeKey, std::string>, std::int64_t> still;
  std::erase_if(fixes, [&](const Fix& fix) {
    const std::pair name{key, fix.tid.empty() ? fix.insid : fix.tid};
    if (fix.kind == Fix::Kind::orphan || fix.kind == Fix::Kind::stray) {
      const auto seen = orphans_.find(name);
      const std::int64_t first = seen == orphans_.end() ? now : seen->second;
      still[name] = first;
      if (seen == orphans_.end()) {
        obs::warn("orphan.seen",
                  {{"node", holdings.host}, {"insid", fix.insid}, {"tid", fix.tid}, {"why", fix.why}});
        count("seen", to_string(fix.kind));
      }
      if (fix.kind == Fix::Kind::stray || now - first < kOrphanMs) return true;
    }
    if (fix.kind != Fix::Kind::orphan && fix.kind != Fix::Kind::farewell) return false;
    return !farewells_.try_emplace(name, now).second;
  });
  std::erase_if(orphans_, [&](const auto& one) { return one.first.first == key; });
  orphans_.merge(still);
  return fixes;
}

Result<> Reconciler::mend(const Holdings& holdings, const std::vector<Fix>& fixes,
                          const Knowledge& knowledge) {
  return store_.write([&](store::Sql& sql) -> Result<> {
    for (const auto& fix : fixes) {
      if (auto ok = mend_one(sql, holdings, fix, knowledge); !ok) return ok;
    }
    return {};
  });
}

Result<> Reconciler::mend_one(store::Sql& sql, const Holdings& holdings, const Fix& fix,
                              const Knowledge& knowledge) {
  const auto known = knowledge.by_tid.find(fix.tid);
  auto task = store::find_task(sql, fix.tid);
  if (known != knowledge.by_tid.end()) {
    const auto& seen = known->second;
    const bool same = task && task->id == seen.id && task->updated_at == seen.updated_at &&
                      task->cmdid == seen.cmdid && task->cmd_sent_at == seen.cmd_sent_at;
    if (!same) return {};  // moved meanwhile
  } else if (task) {
    return {};
  }
  obs::warn("reconcile.mended",
            {{"node", holdings.host}, {"tid", fix.tid}, {"kind", to_string(fix.kind)}, {"why", fix.why}});
  count("mended", to_string(fix.kind));
  switch (fix.kind) {
    case Fix::Kind::resend: engine_.resend(sql, std::move(*task)); return {};
    case Fix::Kind::adopt: return engine_.adopt(sql, std::move(*task), fix.told, holdings.host);
    case Fix::Kind::stop: engine_.stop_stray(sql, std::move(*task)); return {};
    case Fix::Kind::end: return engine_.end_missing(sql, std::move(*task));
    case Fix::Kind::orphan:
      store::audit(sql, clock_.wall_ms(), "clc", "orphan.end", fix.insid, holdings.host);
      [[fallthrough]];
    case Fix::Kind::farewell:
      engine_.farewell(sql, {fix.tid, holdings.host, holdings.cluster, fix.epoch, fix.attempt});
      return {};
    case Fix::Kind::stray: return {};
  }
  return {};
}

Result<> Reconciler::sweep_ports() {
  auto unowned = store_.read(
      [](store::Sql& sql) -> Result<std::vector<std::string>> { return store::unowned_ports(sql); });
  if (!unowned) return fail(unowned.error());
  const std::int64_t now = clock_.boot_ms();
  std::map<std::string, std::int64_t> still;
  std::vector<std::string> over;
  for (const auto& insid : *unowned) {
    const auto seen = ports_.find(insid);
    still[insid] = seen == ports_.end() ? now : seen->second;
    if (seen == ports_.end()) {
      obs::warn("orphan.seen", {{"insid", insid}, {"why", "its ports have no open task"}});
      count("seen", "ports");
    } else if (now - seen->second >= kPortMs) {
      over.push_back(insid);
    }
  }
  ports_ = std::move(still);
  if (over.empty()) return {};
  return store_.write([&](store::Sql& sql) -> Result<> {
    for (const auto& insid : over) {
      if (store::open_task_of_instance(sql, insid)) continue;
      store::free_ports(sql, insid);
      count("mended", "ports");
      obs::warn("orphan.removed", {{"insid", insid}, {"what", "ports"}});
    }
    return {};
  });
}

}  // namespace educloud::clc
