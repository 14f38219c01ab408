#include <cmath>

#include "clc/domain/planner.hpp"

// What the planner says to people.

namespace educloud::clc {
namespace {

// A refusal must fit a message and a screen.
constexpr std::size_t kShown = 20;  ///< nodes
constexpr std::size_t kShownBytes = 1600;

std::string number(std::int64_t value) {
  return std::to_string(value);
}

/// At most two digits behind the point, and none that say nothing.
std::string factor(double value) {
  auto text = number(std::lround(value * 100));
  text.insert(0, text.size() < 3 ? 3 - text.size() : 0, '0');
  text.insert(text.size() - 2, ".");
  text.erase(text.find_last_not_of('0') + 1);
  if (text.back() == '.') text.pop_back();
  return text;
}

std::string percent(double value) {
  return number(std::lround(value)) + " %";
}

/// Collects what stands against a node: how far it is from fitting is how many things have to be done, then
/// how much of what is needed is lacking (`part`; 0 for what one word of somebody changes). Having to walk to
/// a machine counts for three things.
class Against {
 public:
  explicit Against(NodeVerdict& verdict) : verdict_(verdict) {}

  void add(Resource resource, double part, const std::string& reason, const std::string& fix) {
    const bool first = verdict_.lacks.empty();
    verdict_.lacks.push_back(resource);
    verdict_.reason += (first ? "" : "; ") + reason;
    verdict_.fix += (first ? "" : ", and ") + fix;
    verdict_.distance += (resource == Resource::lease ? 3 : 1) + std::min(0.99, std::max(0.0, part)) / 8;
  }

 private:
  NodeVerdict& verdict_;
};

void judge_reach(Against& against, const NodeFacts& node, const PlacementRequest& request,
                 const PlacementLimits& limits) {
  if (!request.node_pin.empty() && node.host != request.node_pin) {
    against.add(Resource::pin, 0, "pinned to node " + request.node_pin, "lift the pin");
  } else if (!request.cluster_pin.empty() && node.cluster != request.cluster_pin) {
    against.add(Resource::pin, 0, "in cluster " + node.cluster + ", pinned to " + request.cluster_pin,
                "lift the pin");
  } else if (!request.disk_cluster.empty() && node.cluster != request.disk_cluster) {
    against.add(Resource::pin, 0,
                "in cluster " + node.cluster + ", its database disk lies in " + request.disk_cluster,
                "make room on a node of cluster " + request.disk_cluster);
  }
  if (node.state != NodeState::enabled) {
    against.add(Resource::state, 0, "takes no new VMs (" + std::string(to_string(node.state)) + ")",
                "educloud node enable " + node.host);
  }
  const std::string check = "check educloud-nc and the network of " + node.host;
  if (node.lost) {
    against.add(Resource::lease, 0, "lost: its lease ran out", check);
  } else if (node.age_ms < 0) {
    against.add(Resource::lease, 0, "no heartbeat since clc started", "start educloud-nc on " + node.host);
  } else if (node.age_ms > limits.max_age_ms) {
    against.add(Resource::lease, 0,
                "last heartbeat " + number(node.age_ms / 1000) + " s ago (limit " +
                    number(limits.max_age_ms / 1000) + " s)",
                check);
  } else if (!node.cluster_alive) {
    against.add(Resource::lease, 0, "its cluster controller " + node.cluster + " is silent",
                "check educloud-cc on " + node.cluster);
  }
}

void judge_memory(Against& against, const NodeFacts& node, std::int64_t short_mib,
                  const PlacementRequest& request, const PlacementLimits& limits) {
  const std::int64_t need_mib = request.memory_mib + limits.reserve_mib;
  const std::int64_t offer_mib = node.memory_left_mib - limits.reserve_mib;
  const std::string less = offer_mib > 0 ? "ask for at most " + number(offer_mib) + " MiB" : "";
  std::string fix = "free " + number(short_mib) + " MiB" + (less.empty() ? "" : " or " + less);
  // No stopping of VMs makes a machine larger.
  if (need_mib > node.mem_mib) fix = less.empty() ? "take a node with more memory" : less;
  against.add(Resource::memory,
              static_cast<double>(short_mib) / static_cast<double>(std::max<std::int64_t>(1, need_mib)),
              "memory: needs " + number(request.memory_mib) + " + reserve " + number(limits.reserve_mib) +
                  " = " + number(need_mib) + " MiB, has " + number(node.memory_left_mib) + " of " +
                  number(node.mem_mib) + " MiB (" + number(node.vms) + " VMs hold " +
                  number(node.committed_mib) + ")",
              fix);
}

void judge_rest(Against& against, const NodeFacts& node, const Shortage& lack,
                const PlacementRequest& request, const PlacementLimits& limits) {
  if (lack.cpus > 0) {
    const double total = node.cpus * limits.cpu_overcommit;
    const auto left = static_cast<std::int64_t>(std::floor(total - node.committed_cpus));
    against.add(Resource::cpu, static_cast<double>(lack.cpus) / std::max(1, request.cpus),
                "cpu: needs " + number(request.cpus) + ", has " + number(std::max<std::int64_t>(0, left)) +
                    " of " + number(node.cpus) + " x " + factor(limits.cpu_overcommit) + " (" +
                    number(node.committed_cpus) + " promised)",
                request.cpus > total
                    ? "ask for at most " + number(static_cast<std::int64_t>(std::floor(total))) + " cpus"
                    : "stop VMs that hold " + number(lack.cpus) + " cpus");
  }
  if (lack.ports > 0) {
    against.add(Resource::ports, static_cast<double>(lack.ports) / limits.max_seats,
                "ports: " + number(node.seats) + " VMs hold all " + number(limits.max_seats) +
                    " of its display or web ports",
                "stop " + number(lack.ports) + (lack.ports == 1 ? " VM" : " VMs") +
                    " there or widen display_ports and web_ports in clc.conf");
  }
  if (lack.load > 0) {
    against.add(Resource::load, lack.load / 100,
                "cpu: busy " + percent(node.cpu_usage) + " (limit " + percent(limits.max_cpu_usage) + ")",
                "wait until it is less busy");
  }
  if (lack.disk_mib > 0) {
    const std::int64_t fetch_mib = node.has_image ? 0 : request.image_mib;
    const std::int64_t disk_mib = fetch_mib + limits.min_disk_mib;
    against.add(Resource::disk,
                static_cast<double>(lack.disk_mib) / static_cast<double>(std::max<std::int64_t>(1, disk_mib)),
                "disk: needs " + number(fetch_mib) + " for the image + " + number(limits.min_disk_mib) +
                    " MiB to stay free, has " + number(node.disk_left_mib) + " MiB",
                "free " + number(lack.disk_mib) + " MiB on its storage");
  }
}

}  // namespace

NodeVerdict explain(const NodeFacts& node, const PlacementRequest& request, const PlacementLimits& limits) {
  NodeVerdict out;
  out.facts = node;
  const Shortage lack = shortage_of(node, request, limits);
  out.fits = lack.none();
  if (out.fits) {
    out.reason = "fits: " + number(node.memory_left_mib - request.memory_mib - limits.reserve_mib) +
                 " MiB left" + (node.has_image ? ", has the image" : ", image has to be fetched");
    return out;
  }
  Against against(out);
  judge_reach(against, node, request, limits);
  if (lack.memory_mib > 0) judge_memory(against, node, lack.memory_mib, request, limits);
  judge_rest(against, node, lack, request, limits);
  return out;
}

std::string Plan::nearest_fix() const {
  if (verdicts.empty() || verdicts.front().fits) return "";
  return verdicts.front().facts.host + ": " + verdicts.front().fix;
}

std::string Plan::explain() const {
  std::string text;
  for (const auto& one : verdicts) {
    text += one.facts.host + ": " + (one.rank == 1 ? "chosen, " : "") + one.reason + "\n";
  }
  return text;
}

Error refusal(const Plan& plan, const PlacementRequest& request) {
  std::string message = "no node can take this VM (" + number(request.memory_mib) + " MiB, " +
                        number(request.cpus) + (request.cpus == 1 ? " cpu)" : " cpus)");
  if (plan.verdicts.empty()) {
    return {ErrorCode::exhausted, message + ": no node is registered; add one with educloud init", {}};
  }
  std::size_t shown = 0;
  for (; shown < std::min(kShown, plan.verdicts.size()) && message.size() < kShownBytes; ++shown) {
    const auto& one = plan.verdicts[shown];
    message += "; " + one.facts.host + ": " + one.reason + " -> " + one.fix;
  }
  if (plan.verdicts.size() > shown)
    message += "; and " + number(static_cast<std::int64_t>(plan.verdicts.size() - shown)) + " more";
  return {ErrorCode::exhausted, message, {}};
}

}  // namespace educloud::clc
