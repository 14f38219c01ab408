#include "clc/domain/planner.hpp"

#include <algorithm>
#include <cmath>

namespace educloud::clc {
namespace {

std::string number(std::int64_t value) {
  return std::to_string(value);
}

std::string percent(double value) {
  return number(static_cast<std::int64_t>(std::lround(value))) + " %";
}

/// What a node has left after everything promised.
struct Left {
  std::int64_t memory_mib = 0;  ///< before the reserve and this request
  std::int64_t disk_mib = 0;
  double cpus = 0;
  std::int64_t committed_mib = 0;
  int committed_cpus = 0;
  int vms = 0;
};

Left left_on(const NodeSnapshot& node, const std::vector<Reservation>& reservations,
             const PlacementRequest& request, const PlacementLimits& limits) {
  Left left;
  std::int64_t not_resident = 0;
  for (const auto& one : reservations) {
    if (one.node != node.host || one.insid == request.insid) continue;
    ++left.vms;
    left.committed_mib += one.memory_mib;
    left.committed_cpus += one.cpus;
    // A guest takes its memory little by little: what it has not taken yet is spoken for all the same.
    const auto resident = node.resident_mib.find(one.insid);
    const std::int64_t taken = resident == node.resident_mib.end() ? 0 : resident->second;
    not_resident += std::max<std::int64_t>(0, one.memory_mib - taken);
  }
  const std::int64_t by_promise = node.mem_mib - left.committed_mib;
  const std::int64_t by_measure = node.mem_mib - node.mem_usage_mib - not_resident;
  left.memory_mib = std::max<std::int64_t>(0, std::min(by_promise, by_measure));
  left.disk_mib = std::max<std::int64_t>(0, node.disk_mib - node.disk_usage_mib);
  left.cpus = node.cpus * limits.cpu_overcommit - left.committed_cpus;
  return left;
}

NodeVerdict refuse(const NodeSnapshot& node, std::string reason, std::string fix) {
  return {node.host, false, std::move(reason), std::move(fix)};
}

NodeVerdict judge(const NodeSnapshot& node, const Left& left, const PlacementRequest& request,
                  const PlacementLimits& limits) {
  if (!request.node_pin.empty() && node.host != request.node_pin) {
    return refuse(node, "pinned to node " + request.node_pin, "lift the pin");
  }
  if (!request.cluster_pin.empty() && node.cluster != request.cluster_pin) {
    return refuse(node, "in cluster " + node.cluster + ", pinned to " + request.cluster_pin, "lift the pin");
  }
  if (!node.enabled) return refuse(node, "takes no new VMs (disabled)", "enable it");
  if (node.age_ms < 0)
    return refuse(node, "no heartbeat since clc started", "start educloud-nc on " + node.host);
  if (node.age_ms > limits.max_age_ms) {
    return refuse(node,
                  "last heartbeat " + number(node.age_ms / 1000) + " s ago (limit " +
                      number(limits.max_age_ms / 1000) + " s)",
                  "check educloud-nc and the network of " + node.host);
  }
  if (!node.cluster_alive) {
    return refuse(node, "its cluster controller " + node.cluster + " is silent",
                  "check educloud-cc on " + node.cluster);
  }
  const std::int64_t need_mib = request.memory_mib + limits.reserve_mib;
  if (left.memory_mib < need_mib) {
    return refuse(node,
                  "memory: needs " + number(request.memory_mib) + " + reserve " + number(limits.reserve_mib) +
                      " = " + number(need_mib) + " MiB, has " + number(left.memory_mib) + " of " +
                      number(node.mem_mib) + " MiB (" + number(left.vms) + " VMs hold " +
                      number(left.committed_mib) + ")",
                  left.memory_mib > limits.reserve_mib
                      ? "free " + number(need_mib - left.memory_mib) + " MiB or ask for at most " +
                            number(left.memory_mib - limits.reserve_mib) + " MiB"
                      : "free " + number(need_mib - left.memory_mib) + " MiB");
  }
  if (left.cpus < request.cpus) {
    return refuse(node,
                  "cpu: needs " + number(request.cpus) + ", has " +
                      number(static_cast<std::int64_t>(std::floor(left.cpus))) + " of " + number(node.cpus) +
                      " x " + number(static_cast<std::int64_t>(limits.cpu_overcommit)) + " (" +
                      number(left.committed_cpus) + " promised)",
                  "stop VMs that hold " +
                      number(static_cast<std::int64_t>(std::ceil(request.cpus - left.cpus))) + " cpus");
  }
  if (limits.max_cpu_usage < 100 && node.cpu_usage >= limits.max_cpu_usage) {
    return refuse(node,
                  "cpu: busy " + percent(node.cpu_usage) + " (limit " + percent(limits.max_cpu_usage) + ")",
                  "wait until it is less busy");
  }
  const std::int64_t fetch_mib = node.has_image ? 0 : request.image_mib;
  if (left.disk_mib < limits.min_disk_mib + fetch_mib) {
    return refuse(node,
                  "disk: needs " + number(fetch_mib) + " for the image + " + number(limits.min_disk_mib) +
                      " MiB to stay free, has " + number(left.disk_mib) + " MiB",
                  "free " + number(limits.min_disk_mib + fetch_mib - left.disk_mib) + " MiB on its storage");
  }
  return {node.host, true,
          std::string("fits: ") + number(left.memory_mib - need_mib) + " MiB left" +
              (node.has_image ? ", has the image" : ", image has to be fetched"),
          ""};
}

}  // namespace

std::string Plan::explain() const {
  std::string text;
  for (const auto& one : verdicts) {
    text += one.host + ": " + (one.host == node ? "chosen, " : "") + one.reason + "\n";
  }
  return text;
}

Result<Plan> plan(const std::vector<NodeSnapshot>& nodes, const std::vector<Reservation>& reservations,
                  const PlacementRequest& request, const PlacementLimits& limits) {
  std::vector<const NodeSnapshot*> by_name;
  for (const auto& node : nodes) by_name.push_back(&node);
  std::sort(by_name.begin(), by_name.end(), [](const auto* a, const auto* b) { return a->host < b->host; });

  Plan plan;
  const NodeSnapshot* best = nullptr;
  Left best_left;
  for (const auto* node : by_name) {
    const Left left = left_on(*node, reservations, request, limits);
    plan.verdicts.push_back(judge(*node, left, request, limits));
    if (!plan.verdicts.back().fits) continue;
    const bool better =
        !best ||
        (node->has_image != best->has_image ? node->has_image : left.memory_mib > best_left.memory_mib);
    if (better) {
      best = node;
      best_left = left;
    }
  }
  if (best) {
    plan.node = best->host;
    plan.cluster = best->cluster;
    return plan;
  }
  std::string message = "no node can take this VM (" + number(request.memory_mib) + " MiB, " +
                        number(request.cpus) + (request.cpus == 1 ? " cpu)" : " cpus)");
  if (nodes.empty())
    return fail(ErrorCode::exhausted, message + ": no node is registered; add one with educloud init");
  // An errormsg must fit a message and a screen; the rest is in the node list.
  constexpr std::size_t kShown = 20;
  for (std::size_t i = 0; i < std::min(kShown, plan.verdicts.size()); ++i) {
    const auto& one = plan.verdicts[i];
    message += "; " + one.host + ": " + one.reason + " -> " + one.fix;
  }
  if (plan.verdicts.size() > kShown)
    message += "; and " + number(static_cast<std::int64_t>(plan.verdicts.size() - kShown)) + " more";
  return fail(ErrorCode::exhausted, message);
}

}  // namespace educloud::clc
