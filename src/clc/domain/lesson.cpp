#include "clc/domain/lesson.hpp"

#include <algorithm>
#include <set>

namespace educloud::clc {
namespace {

/// `node` as it stands once one VM like `request` is promised to it.
void take_one(NodeFacts& node, const PlacementRequest& request) {
  node.memory_left_mib -= request.memory_mib;
  node.committed_mib += request.memory_mib;
  node.committed_cpus += request.cpus;
  ++node.vms;
  ++node.seats;
}

bool lacks(const Share& share, Resource resource) {
  const auto& all = share.next.lacks;
  return std::find(all.begin(), all.end(), resource) != all.end();
}

/// True if the node is there and may be used: what it lacks is capacity.
bool could_serve(const Share& share) {
  return !lacks(share, Resource::pin) && !lacks(share, Resource::state) && !lacks(share, Resource::lease);
}

std::int64_t short_by(Resource resource, const std::vector<const Share*>& nodes, int missing,
                      const PlacementRequest& request, const PlacementLimits& limits) {
  switch (resource) {
    case Resource::memory: return missing * request.memory_mib;
    case Resource::cpu: return std::int64_t{missing} * request.cpus;
    case Resource::disk: {
      std::int64_t sum = 0;
      for (const auto* one : nodes) sum += shortage_of(one->next.facts, request, limits).disk_mib;
      return sum;
    }
    case Resource::ports: return missing;
    case Resource::load:
    case Resource::pin:
    case Resource::state:
    case Resource::lease: return 0;
  }
  return 0;
}

/// The largest memory of each VM with which all fit. Capacity falls as the size rises, so halving finds it.
std::int64_t memory_that_fits(const Seating& seating, PlacementRequest request,
                              const PlacementLimits& limits) {
  const std::int64_t wanted = seating.placed + seating.missing;
  const auto all_fit = [&](std::int64_t memory_mib) {
    request.memory_mib = memory_mib;
    std::int64_t room = 0;
    for (const auto& one : seating.shares) room += capacity_of(one.facts, request, limits);
    return room >= wanted;
  };
  constexpr std::int64_t kLeastMib = 256;
  std::int64_t low = kLeastMib, high = request.memory_mib;
  if (high <= low || !all_fit(low)) return 0;
  while (high - low > 1) {
    const std::int64_t middle = low + (high - low) / 2;
    (all_fit(middle) ? low : high) = middle;
  }
  return low / 64 * 64;
}

std::string text_of(const Bottleneck& out, const Seating& seating, const PlacementRequest& request) {
  const std::string who = std::to_string(seating.missing) + " of " +
                          std::to_string(seating.placed + seating.missing) + " find no place: ";
  std::string where;
  constexpr std::size_t kShown = 10;
  for (std::size_t i = 0; i < std::min(kShown, out.nodes.size()); ++i)
    where += (i == 0 ? "" : ", ") + out.nodes[i];
  if (out.nodes.size() > kShown) where += " and " + std::to_string(out.nodes.size() - kShown) + " more";
  const std::string amount = std::to_string(out.short_by);
  switch (out.resource) {
    case Resource::memory:
      return who + "memory, " + amount + " MiB short (" + std::to_string(request.memory_mib) + " each) on " +
             where;
    case Resource::cpu: return who + "cpus, " + amount + " short on " + where;
    case Resource::disk: return who + "disk, " + amount + " MiB short on " + where;
    case Resource::ports: return who + "display or web ports, " + amount + " short on " + where;
    case Resource::load: return who + "busy at this moment: " + where;
    case Resource::pin: return who + "outside of the pins: " + where;
    case Resource::state: return who + "taking no new VMs: " + where;
    case Resource::lease: return who + "not heard of: " + where;
  }
  return who;
}

}  // namespace

Seating place_many(std::vector<NodeFacts> nodes, const PlacementRequest& request,
                   const PlacementLimits& limits, int count) {
  Seating out;
  std::sort(nodes.begin(), nodes.end(), [](const auto& a, const auto& b) { return a.host < b.host; });
  for (const auto& node : nodes) {
    Share share;
    share.facts = node;
    out.shares.push_back(std::move(share));
  }
  const auto order = [&](std::size_t a, std::size_t b) {
    return is_better(nodes[a], nodes[b], limits.policy);
  };
  std::set<std::size_t, decltype(order)> fitting(order);
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    if (shortage_of(nodes[i], request, limits).none()) fitting.insert(i);
  }
  for (; out.placed < std::min(count, kMostSeats) && !fitting.empty(); ++out.placed) {
    const auto chosen = *fitting.begin();
    fitting.erase(fitting.begin());  // before its facts, by which it is found, change
    take_one(nodes[chosen], request);
    ++out.shares[chosen].vms;
    if (shortage_of(nodes[chosen], request, limits).none()) fitting.insert(chosen);
  }
  out.missing = std::max(0, count - out.placed);
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    auto& share = out.shares[i];
    share.fetch_mib = share.vms > 0 && !share.facts.has_image ? request.image_mib : 0;
    if (out.missing > 0) share.next = explain(nodes[i], request, limits);
  }
  return out;
}

std::optional<Bottleneck> bottleneck_of(const Seating& seating, const PlacementRequest& request,
                                        const PlacementLimits& limits) {
  if (seating.missing == 0) return std::nullopt;
  Bottleneck out;
  if (seating.shares.empty()) {
    out.resource = Resource::lease;
    out.text = "no node is registered; add one with educloud init";
    return out;
  }
  const bool any_could = std::any_of(seating.shares.begin(), seating.shares.end(), could_serve);
  std::vector<const Share*> most;
  for (const Resource resource : {Resource::memory, Resource::cpu, Resource::disk, Resource::load,
                                  Resource::ports, Resource::state, Resource::lease, Resource::pin}) {
    std::vector<const Share*> those;
    for (const auto& one : seating.shares) {
      if (lacks(one, resource) && (!any_could || could_serve(one))) those.push_back(&one);
    }
    // Where no node may be used, that is what is wrong with the cloud, however full they are besides.
    const bool capacity =
        resource != Resource::state && resource != Resource::lease && resource != Resource::pin;
    if (capacity != any_could || those.size() <= most.size()) continue;
    most = std::move(those);
    out.resource = resource;
  }
  for (const auto* one : most) out.nodes.push_back(one->facts.host);
  out.short_by = short_by(out.resource, most, seating.missing, request, limits);
  const auto nearest =
      std::min_element(seating.shares.begin(), seating.shares.end(),
                       [](const Share& a, const Share& b) { return a.next.distance < b.next.distance; });
  out.remedy = nearest->facts.host + ": " + nearest->next.fix;
  if (out.resource == Resource::memory) out.memory_mib_that_fits = memory_that_fits(seating, request, limits);
  out.text = text_of(out, seating, request);
  return out;
}

Estimate estimate_of(const Seating& seating, std::int64_t image_bytes, const BootGate& gate,
                     const Pace& pace) {
  constexpr std::int64_t kAssumedBootMs = 30'000;
  Estimate out;
  int most = 0;
  for (const auto& share : seating.shares) {
    if (share.vms == 0) continue;
    most = std::max(most, share.vms);
    if (share.facts.has_image) continue;
    const auto at = pace.fetch_bytes_per_s.find(share.facts.cluster);
    const bool known = at != pace.fetch_bytes_per_s.end() && at->second > 0;
    const std::int64_t rate = known ? at->second : kAssumedBytesPerS;
    const std::int64_t seconds = (image_bytes + rate - 1) / rate;
    if (out.fetch_bytes_per_s != 0 && seconds <= out.fetch_s) continue;
    out.fetch_s = seconds;
    out.fetch_bytes_per_s = rate;
    out.fetch_measured = known;
  }
  if (most == 0) return out;
  const std::int64_t boot_ms = pace.boot_ms.value_or(kAssumedBootMs);
  out.boot_measured = pace.boot_ms.has_value();
  out.waves = (most + gate.max_parallel - 1) / gate.max_parallel;
  // The next wave starts when the one before runs, or has lost its slots.
  const std::int64_t ms = (out.waves - 1) * std::min(boot_ms, gate.slot_ms) + boot_ms;
  out.boot_s = (ms + 999) / 1000;
  out.total_s = out.fetch_s + out.boot_s;
  return out;
}

}  // namespace educloud::clc
