#include "clc/app/views.hpp"

// What the planner decided, as the API shows it.

namespace educloud::clc {

using nlohmann::json;

namespace {

json request_json(const PlacementRequest& request, const std::string& imgid, int version) {
  return {
      {"memory_mib", request.memory_mib}, {"cpus", request.cpus},    {"image", imgid}, {"version", version},
      {"cluster", request.cluster_pin},   {"node", request.node_pin}};
}

json verdict_json(const NodeVerdict& verdict, const PlacementLimits& limits) {
  const auto& facts = verdict.facts;
  auto lacks = json::array();
  for (const auto one : verdict.lacks) lacks.push_back(to_string(one));
  return {{"host", facts.host},
          {"cluster", facts.cluster},
          {"fits", verdict.fits},
          {"rank", verdict.rank},
          {"reason", verdict.reason},
          {"fix", verdict.fix},
          {"lacks", std::move(lacks)},
          {"has_image", facts.has_image},
          {"memory_left_mib", std::max<std::int64_t>(0, facts.memory_left_mib - limits.reserve_mib)},
          {"disk_left_mib", facts.disk_left_mib},
          {"cpus_left", facts.cpus * limits.cpu_overcommit - facts.committed_cpus},
          {"cpu_usage", facts.cpu_usage},
          {"vms", facts.vms}};
}

}  // namespace

json to_json(const WhyView& why) {
  const auto& decision = why.decision;
  auto nodes = json::array();
  for (const auto& one : why.plan.verdicts) nodes.push_back(verdict_json(one, decision.limits));
  json out{{"tid", decision.tid},
           {"at", decision.at},
           {"policy", to_string(decision.limits.policy)},
           {"request", request_json(decision.request, decision.imgid, decision.version)},
           {"chosen", decision.chosen},
           {"nearest_fix", why.plan.nearest_fix()},
           {"nodes", std::move(nodes)},
           {"others", decision.others},
           {"task", nullptr}};
  if (why.task) out["task"] = to_json(*why.task);
  return out;
}

json to_json(const PlanView& plan) {
  auto nodes = json::array();
  for (const auto& share : plan.seating.shares) {
    nodes.push_back({{"host", share.facts.host},
                     {"cluster", share.facts.cluster},
                     {"vms", share.vms},
                     {"has_image", share.facts.has_image},
                     {"fetch_mib", share.fetch_mib},
                     {"reason", share.next.reason},
                     {"fix", share.next.fix}});
  }
  const auto& e = plan.estimate;
  json out{{"image", plan.imgid},
           {"image_name", plan.image_name},
           {"request", request_json(plan.request, plan.imgid, plan.version)},
           {"policy", to_string(plan.policy)},
           {"at", plan.at},
           {"count", plan.count},
           {"fits", plan.seating.placed},
           {"missing", plan.seating.missing},
           {"bottleneck", nullptr},
           {"per_node", std::move(nodes)},
           {"estimate_s",
            {{"fetch", e.fetch_s},
             {"boot", e.boot_s},
             {"total", e.total_s},
             {"fetch_bytes_per_s", e.fetch_bytes_per_s},
             {"fetch_measured", e.fetch_measured},
             {"boot_measured", e.boot_measured},
             {"boot_waves", e.waves}}},
           {"notes", plan.notes}};
  if (plan.bottleneck) {
    const auto& b = *plan.bottleneck;
    out["bottleneck"] = {{"resource", to_string(b.resource)},
                         {"nodes", b.nodes},
                         {"short_by", b.short_by},
                         {"text", b.text},
                         {"remedy", b.remedy},
                         {"memory_mib_that_fits", b.memory_mib_that_fits}};
  }
  return out;
}

}  // namespace educloud::clc
