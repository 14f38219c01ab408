#include "clc/domain/ledger.hpp"

#include <algorithm>

#include <nlohmann/json.hpp>

namespace educloud::clc {
namespace {

using nlohmann::json;

// A node is a row of values in this order: names would be most of the ledger.
json row_of(const NodeFacts& node) {
  return json::array({node.host, node.cluster, to_string(node.state), node.lost, node.cluster_alive,
                      node.has_image, node.age_ms, node.cpus, node.cpu_usage, node.mem_mib,
                      node.memory_left_mib, node.disk_left_mib, node.committed_mib, node.committed_cpus,
                      node.vms, node.seats});
}

/// Throws json's exceptions.
NodeFacts facts_of(const json& row) {
  NodeFacts node;
  node.host = row.at(0).get<std::string>();
  node.cluster = row.at(1).get<std::string>();
  node.state = parse_node_state(row.at(2).get<std::string>()).value_or(NodeState::enabled);
  node.lost = row.at(3).get<bool>();
  node.cluster_alive = row.at(4).get<bool>();
  node.has_image = row.at(5).get<bool>();
  node.age_ms = row.at(6).get<std::int64_t>();
  node.cpus = row.at(7).get<int>();
  node.cpu_usage = row.at(8).get<double>();
  node.mem_mib = row.at(9).get<std::int64_t>();
  node.memory_left_mib = row.at(10).get<std::int64_t>();
  node.disk_left_mib = row.at(11).get<std::int64_t>();
  node.committed_mib = row.at(12).get<std::int64_t>();
  node.committed_cpus = row.at(13).get<int>();
  node.vms = row.at(14).get<int>();
  node.seats = row.size() > 15 ? row.at(15).get<int>() : node.vms;  // written before ports were counted
  return node;
}

}  // namespace

void set_nodes(Decision& decision, std::vector<NodeFacts> nodes) {
  const auto& request = decision.request;
  const auto& limits = decision.limits;
  if (nodes.size() > kLedgerNodes) {
    const auto refused = std::partition(nodes.begin(), nodes.end(), [&](const NodeFacts& node) {
      return shortage_of(node, request, limits).none();
    });
    std::sort(nodes.begin(), refused,
              [&](const NodeFacts& a, const NodeFacts& b) { return is_better(a, b, limits.policy); });
    // Sentences are made of each to know how near it is: only if there is room for them.
    if (static_cast<std::size_t>(refused - nodes.begin()) < kLedgerNodes) {
      const auto plan = decide({refused, nodes.end()}, request, limits);
      std::transform(plan.verdicts.begin(), plan.verdicts.end(), refused,
                     [](const NodeVerdict& one) { return one.facts; });
    }
    decision.others = static_cast<int>(nodes.size() - kLedgerNodes);
    nodes.resize(kLedgerNodes);
  }
  decision.nodes = std::move(nodes);
}

std::string serialize(const Decision& decision) {
  const auto& request = decision.request;
  const auto& limits = decision.limits;
  auto nodes = json::array();
  for (const auto& one : decision.nodes) nodes.push_back(row_of(one));
  const json out{{"image", decision.imgid},
                 {"version", decision.version},
                 {"insid", request.insid},
                 {"memory_mib", request.memory_mib},
                 {"cpus", request.cpus},
                 {"image_mib", request.image_mib},
                 {"cluster", request.cluster_pin},
                 {"node", request.node_pin},
                 {"disk_cluster", request.disk_cluster},
                 {"policy", to_string(limits.policy)},
                 {"max_cpu_usage", limits.max_cpu_usage},
                 {"cpu_overcommit", limits.cpu_overcommit},
                 {"reserve_mib", limits.reserve_mib},
                 {"min_disk_mib", limits.min_disk_mib},
                 {"max_age_ms", limits.max_age_ms},
                 {"max_seats", limits.max_seats},
                 {"others", decision.others},
                 {"nodes", std::move(nodes)}};
  return out.dump(-1, ' ', false, json::error_handler_t::replace);
}

Result<Decision> parse_decision(std::string_view text) {
  Decision out;
  try {
    const auto in = json::parse(text);
    out.imgid = in.at("image").get<std::string>();
    out.version = in.at("version").get<int>();
    out.request.insid = in.at("insid").get<std::string>();
    out.request.memory_mib = in.at("memory_mib").get<std::int64_t>();
    out.request.cpus = in.at("cpus").get<int>();
    out.request.image_mib = in.at("image_mib").get<std::int64_t>();
    out.request.cluster_pin = in.at("cluster").get<std::string>();
    out.request.node_pin = in.at("node").get<std::string>();
    out.request.disk_cluster = in.value("disk_cluster", "");
    out.limits.policy = parse_policy(in.at("policy").get<std::string>()).value_or(Policy::image_first);
    out.limits.max_cpu_usage = in.at("max_cpu_usage").get<double>();
    out.limits.cpu_overcommit = in.at("cpu_overcommit").get<double>();
    out.limits.reserve_mib = in.at("reserve_mib").get<std::int64_t>();
    out.limits.min_disk_mib = in.at("min_disk_mib").get<std::int64_t>();
    out.limits.max_age_ms = in.at("max_age_ms").get<std::int64_t>();
    out.limits.max_seats = in.value("max_seats", 0);
    out.others = in.at("others").get<int>();
    for (const auto& row : in.at("nodes")) out.nodes.push_back(facts_of(row));
  } catch (const json::exception& exception) {
    return fail(ErrorCode::corrupt, std::string("a decision that cannot be read: ") + exception.what());
  }
  return out;
}

}  // namespace educloud::clc
