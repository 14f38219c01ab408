#include "clc/domain/planner.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <tuple>

namespace educloud::clc {
namespace {

constexpr std::array<std::pair<Policy, std::string_view>, 3> kPolicies{
    {{Policy::image_first, "image_first"}, {Policy::spread, "spread"}, {Policy::pack, "pack"}}};

double cpus_left(const NodeFacts& node, const PlacementLimits& limits) {
  return node.cpus * limits.cpu_overcommit - node.committed_cpus;
}

std::int64_t need_mib(const PlacementRequest& request, const PlacementLimits& limits) {
  return request.memory_mib + limits.reserve_mib;
}

std::int64_t fetch_mib(const NodeFacts& node, const PlacementRequest& request) {
  return node.has_image ? 0 : request.image_mib;
}

// A class must not pile up on the one node that has its image while the others idle: fetching it costs
// seconds, a crowded node the whole lesson.
constexpr std::int64_t kImagePercent = 25;

std::int64_t room_percent(const NodeFacts& node) {
  return node.memory_left_mib * 100 / std::max<std::int64_t>(1, node.mem_mib) +
         (node.has_image ? kImagePercent : 0);
}

}  // namespace

std::string_view to_string(Policy policy) {
  for (const auto& [one, name] : kPolicies) {
    if (one == policy) return name;
  }
  return "image_first";
}

Result<Policy> parse_policy(std::string_view text) {
  for (const auto& [one, name] : kPolicies) {
    if (name == text) return one;
  }
  return fail(
      ErrorCode::invalid_argument,
      "placement policy '" + std::string(text.substr(0, 40)) + "' is none of image_first, spread, pack",
      "placement.policy");
}

PlacementLimits server_limits(PlacementLimits limits) {
  limits.max_cpu_usage = std::min(100.0, limits.max_cpu_usage + 10);
  limits.min_disk_mib *= 2;
  return limits;
}

std::string_view to_string(Resource resource) {
  switch (resource) {
    case Resource::memory: return "memory";
    case Resource::cpu: return "cpu";
    case Resource::disk: return "disk";
    case Resource::load: return "load";
    case Resource::ports: return "ports";
    case Resource::pin: return "pin";
    case Resource::state: return "state";
    case Resource::lease: return "lease";
  }
  return "memory";
}

VmSize started_size(const VmSize& told, const VmSize& defined, bool runs) {
  VmSize out{std::max(told.memory_mib, defined.memory_mib), std::max(told.cpus, defined.cpus)};
  if (runs && told.memory_mib > 0) out.memory_mib = told.memory_mib;
  if (runs && told.cpus > 0) out.cpus = told.cpus;
  return out;
}

std::vector<NodeFacts> facts_of(const std::vector<NodeSnapshot>& nodes,
                                const std::vector<Reservation>& reservations, const std::string& insid) {
  struct Entry {
    NodeFacts facts;
    const NodeSnapshot* node;
    std::int64_t not_resident_mib = 0;
  };
  std::map<std::string_view, Entry> by_name;
  for (const auto& node : nodes) {
    Entry entry{{}, &node, 0};
    auto& facts = entry.facts;
    facts.host = node.host;
    facts.cluster = node.cluster;
    facts.state = node.state;
    facts.lost = node.lost;
    facts.cluster_alive = node.cluster_alive;
    facts.has_image = node.has_image;
    facts.age_ms = node.age_ms;
    facts.cpus = node.cpus;
    facts.cpu_usage = node.cpu_usage;
    facts.mem_mib = node.mem_mib;
    facts.disk_left_mib = std::max<std::int64_t>(0, node.disk_mib - node.disk_usage_mib);
    by_name.emplace(node.host, std::move(entry));
  }
  const auto told = [&](const std::string& host, const std::string& vm) {
    const auto at = by_name.find(host);
    if (at == by_name.end()) return VmSize{};
    const auto size = at->second.node->sizes.find(vm);
    return size == at->second.node->sizes.end() ? VmSize{} : size->second;
  };
  for (const auto& one : reservations) {
    const auto at = by_name.find(one.node);
    if (at == by_name.end() || one.insid == insid) continue;
    auto& entry = at->second;
    ++entry.facts.seats;
    if (!one.runs) continue;
    ++entry.facts.vms;
    // Of a VM that runs counts what it was started with: its definition is for its next start, and its owner
    // could take the whole node with it otherwise.
    const bool is_up = !one.runs_on.empty();
    const VmSize size =
        started_size(told(is_up ? one.runs_on : one.node, one.insid), {one.memory_mib, one.cpus}, is_up);
    const std::int64_t memory_mib = size.memory_mib;
    entry.facts.committed_mib += memory_mib;
    entry.facts.committed_cpus += size.cpus;
    // A guest takes its memory little by little: what it has not taken yet is spoken for all the same.
    const auto resident = entry.node->resident_mib.find(one.insid);
    const std::int64_t taken = resident == entry.node->resident_mib.end() ? 0 : resident->second;
    entry.not_resident_mib += std::max<std::int64_t>(0, memory_mib - taken);
  }
  std::vector<NodeFacts> out;
  out.reserve(by_name.size());
  for (auto& [name, entry] : by_name) {
    const std::int64_t by_promise = entry.node->mem_mib - entry.facts.committed_mib;
    const std::int64_t by_measure = entry.node->mem_mib - entry.node->mem_usage_mib - entry.not_resident_mib;
    entry.facts.memory_left_mib = std::max<std::int64_t>(0, std::min(by_promise, by_measure));
    out.push_back(std::move(entry.facts));
  }
  return out;
}

Shortage shortage_of(const NodeFacts& node, const PlacementRequest& request, const PlacementLimits& limits) {
  Shortage out;
  out.pinned_away = (!request.node_pin.empty() && node.host != request.node_pin) ||
                    (!request.cluster_pin.empty() && node.cluster != request.cluster_pin) ||
                    (!request.disk_cluster.empty() && node.cluster != request.disk_cluster);
  out.closed = node.state != NodeState::enabled;
  out.away = node.lost || node.age_ms < 0 || node.age_ms > limits.max_age_ms || !node.cluster_alive;
  if (node.age_ms < 0) return out;  // nothing is known of its hardware
  out.memory_mib = std::max<std::int64_t>(0, need_mib(request, limits) - node.memory_left_mib);
  out.cpus = std::max(0, static_cast<int>(std::ceil(request.cpus - cpus_left(node, limits))));
  if (limits.max_seats > 0) out.ports = std::max(0, node.seats + 1 - limits.max_seats);
  if (limits.max_cpu_usage < 100 && node.cpu_usage >= limits.max_cpu_usage)
    out.load = std::max(0.001, node.cpu_usage - limits.max_cpu_usage);
  out.disk_mib =
      std::max<std::int64_t>(0, limits.min_disk_mib + fetch_mib(node, request) - node.disk_left_mib);
  return out;
}

std::int64_t capacity_of(const NodeFacts& node, const PlacementRequest& request,
                         const PlacementLimits& limits) {
  if (!shortage_of(node, request, limits).none()) return 0;
  const std::int64_t by_memory =
      (node.memory_left_mib - limits.reserve_mib) / std::max<std::int64_t>(1, request.memory_mib);
  const auto by_cpus =
      static_cast<std::int64_t>(std::floor(cpus_left(node, limits) / std::max(1, request.cpus)));
  const std::int64_t by_ports = limits.max_seats > 0 ? limits.max_seats - node.seats : by_memory;
  return std::min({by_memory, by_cpus, by_ports});
}

bool is_better(const NodeFacts& a, const NodeFacts& b, Policy policy) {
  const auto image = [](const NodeFacts& node) { return node.has_image ? 0 : 1; };
  switch (policy) {
    case Policy::image_first:
      return std::tuple(-room_percent(a), image(a), -a.memory_left_mib, std::string_view(a.host)) <
             std::tuple(-room_percent(b), image(b), -b.memory_left_mib, std::string_view(b.host));
    case Policy::spread:
      return std::tuple(a.vms, -a.memory_left_mib, image(a), std::string_view(a.host)) <
             std::tuple(b.vms, -b.memory_left_mib, image(b), std::string_view(b.host));
    case Policy::pack:
      return std::tuple(a.memory_left_mib, image(a), std::string_view(a.host)) <
             std::tuple(b.memory_left_mib, image(b), std::string_view(b.host));
  }
  return a.host < b.host;
}

const NodeFacts* choose(const std::vector<NodeFacts>& nodes, const PlacementRequest& request,
                        const PlacementLimits& limits) {
  const NodeFacts* best = nullptr;
  for (const auto& node : nodes) {
    if (best && !is_better(node, *best, limits.policy)) continue;
    if (shortage_of(node, request, limits).none()) best = &node;
  }
  return best;
}

Plan decide(const std::vector<NodeFacts>& nodes, const PlacementRequest& request,
            const PlacementLimits& limits) {
  Plan plan;
  for (const auto& node : nodes) plan.verdicts.push_back(explain(node, request, limits));
  std::sort(plan.verdicts.begin(), plan.verdicts.end(), [&](const NodeVerdict& a, const NodeVerdict& b) {
    if (a.fits != b.fits) return a.fits;
    if (a.fits) return is_better(a.facts, b.facts, limits.policy);
    return std::tie(a.distance, a.facts.host) < std::tie(b.distance, b.facts.host);
  });
  int rank = 0;
  for (auto& one : plan.verdicts) {
    if (one.fits) one.rank = ++rank;
  }
  if (rank > 0) {
    plan.node = plan.verdicts.front().facts.host;
    plan.cluster = plan.verdicts.front().facts.cluster;
  }
  return plan;
}

Result<Plan> plan(const std::vector<NodeSnapshot>& nodes, const std::vector<Reservation>& reservations,
                  const PlacementRequest& request, const PlacementLimits& limits) {
  auto plan = decide(facts_of(nodes, reservations, request.insid), request, limits);
  if (plan.node.empty()) return fail(refusal(plan, request));
  return plan;
}

}  // namespace educloud::clc
