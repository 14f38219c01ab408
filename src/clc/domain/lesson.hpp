#pragma once

#include <optional>
#include <string>
#include <vector>

#include "clc/domain/boot_gate.hpp"
#include "clc/domain/planner.hpp"

/// A dry run: would a whole class of equal VMs find room, what is short, how long would it take. All pure.
namespace educloud::clc {

inline constexpr int kMostSeats = 10'000;

/// What becomes of one node.
struct Share {
  NodeFacts facts;  ///< before the class comes
  int vms = 0;      ///< of the class
  std::int64_t fetch_mib = 0;
  NodeVerdict next;  ///< why it takes not one more; only if VMs are left over
};

struct Seating {
  int placed = 0, missing = 0;
  std::vector<Share> shares;  ///< of every node, by name
};

/// Places `count` VMs like `request` one after the other, each as choose() would with those before it
/// promised. Deterministic; never over what a node has; more are placed of more asked for.
Seating place_many(std::vector<NodeFacts> nodes, const PlacementRequest& request,
                   const PlacementLimits& limits, int count);

/// What keeps the rest of a class out.
struct Bottleneck {
  Resource resource = Resource::memory;   ///< what most of the nodes that could serve lack
  std::vector<std::string> nodes;         ///< that lack it
  std::int64_t short_by = 0;              ///< all together for those left over: MiB or cpus; 0: not an amount
  std::string text;                       ///< the same for a person
  std::string remedy;                     ///< "HOST: FIX" of the node nearest to taking one more
  std::int64_t memory_mib_that_fits = 0;  ///< of each VM, with which all would fit; 0: none
};

/// Nothing if all fit.
std::optional<Bottleneck> bottleneck_of(const Seating& seating, const PlacementRequest& request,
                                        const PlacementLimits& limits);

/// What was measured, and how it is known.
struct Pace {
  std::map<std::string, std::int64_t> fetch_bytes_per_s;  ///< by cluster, as nodes told lately
  std::optional<std::int64_t> boot_ms;                    ///< of a VM, as nodes told lately
};
inline constexpr std::int64_t kAssumedBytesPerS = 125'000'000;  ///< 1 Gbit/s

struct Estimate {
  std::int64_t fetch_s = 0, boot_s = 0, total_s = 0;  ///< rounded up
  std::int64_t fetch_bytes_per_s = 0;                 ///< of the slowest cluster that has to fetch
  bool fetch_measured = false, boot_measured = false;
  int waves = 0;  ///< of boots, on the node with most
};

/// `image_bytes`: what a node that lacks the version fetches. A cluster brings each chunk over its uplink
/// once, so its nodes take as long as one of them.
Estimate estimate_of(const Seating& seating, std::int64_t image_bytes, const BootGate& gate,
                     const Pace& pace);

}  // namespace educloud::clc
