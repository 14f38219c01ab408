#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "clc/domain/types.hpp"
#include "common/base/result.hpp"

namespace educloud::clc {

/// Which of the nodes that fit gets the VM. Every order ends with the node's name, so it is total.
enum class Policy {
  image_first,  ///< most memory left, where having the image counts for a quarter of a node's memory
  spread,       ///< fewest VMs; then most memory left; then has the image
  pack,         ///< least memory left that still fits; then has the image
};
std::string_view to_string(Policy policy);
/// Errors: invalid_argument naming the three.
Result<Policy> parse_policy(std::string_view text);

struct PlacementLimits {
  double max_cpu_usage = 80;        ///< percent; a node busier than this gets no new VM; 100: never refused
  double cpu_overcommit = 4;        ///< virtual cpus per real one
  std::int64_t reserve_mib = 2048;  ///< memory that stays for the host
  std::int64_t min_disk_mib = 10 * 1024;  ///< disk that stays free
  std::int64_t max_age_ms = 15'000;       ///< of a heartbeat
  int max_seats = 0;                      ///< VMs for which a node has ports; 0: no limit
  Policy policy = Policy::image_first;
};

/// What a server wants instead: it may share a busier node, and needs room to grow.
PlacementLimits server_limits(PlacementLimits limits);

struct VmSize {
  std::int64_t memory_mib = 0;
  int cpus = 0;
};

/// What is known of one node: its registration and its last heartbeat.
struct NodeSnapshot {
  std::string host, cluster;
  NodeState state = NodeState::enabled;
  bool lost = false;          ///< its lease ran out and it has not come back
  std::int64_t age_ms = -1;   ///< of the last heartbeat; -1: none
  bool cluster_alive = true;  ///< its cc is heard of
  int cpus = 0;
  double cpu_usage = 0;
  std::int64_t mem_mib = 0, mem_usage_mib = 0;
  std::int64_t disk_mib = 0, disk_usage_mib = 0;
  bool has_image = false;                            ///< the version wanted is in its cache
  std::map<std::string, std::int64_t> resident_mib;  ///< insid -> memory its VM has really taken
  std::map<std::string, VmSize> sizes;               ///< insid -> what its VM was started with
};

/// What is promised to a task that is open.
struct Reservation {
  std::string node, insid;
  std::int64_t memory_mib = 0;
  int cpus = 0;
  bool runs = true;          ///< false: it holds its ports only, as a build does that was stopped
  std::string runs_on = {};  ///< whose word on the size that it runs with counts; empty: it does not run yet
};

struct PlacementRequest {
  std::string insid;  ///< reservations of its own do not count against it
  std::int64_t memory_mib = 0;
  int cpus = 1;
  std::int64_t image_mib = 0;  ///< to be fetched if the node does not have it
  std::string cluster_pin, node_pin;
  std::string disk_cluster;  ///< of a server: where its database disk lies; empty: nowhere yet
};

/// A node with everything promised taken off: all that a decision, and its explanation later, depends on.
struct NodeFacts {
  std::string host, cluster;
  NodeState state = NodeState::enabled;
  bool lost = false, cluster_alive = true, has_image = false;
  std::int64_t age_ms = -1;
  int cpus = 0;
  double cpu_usage = 0;
  std::int64_t mem_mib = 0;
  std::int64_t memory_left_mib = 0;  ///< before the reserve and the VM asked for
  std::int64_t disk_left_mib = 0;
  std::int64_t committed_mib = 0;
  int committed_cpus = 0, vms = 0;
  int seats = 0;  ///< VMs that have ports here or will take them
  bool operator==(const NodeFacts&) const = default;
};

/// What a VM takes of its node: what the node tells of one that `runs`; the larger of the two of any other.
/// 0 is not told.
VmSize started_size(const VmSize& told, const VmSize& defined, bool runs);

/// By name, whatever the order of `nodes`. `insid`: whose reservations do not count.
std::vector<NodeFacts> facts_of(const std::vector<NodeSnapshot>& nodes,
                                const std::vector<Reservation>& reservations, const std::string& insid);

/// What may stand against a node. The first five can be short by an amount.
enum class Resource { memory, cpu, disk, load, ports, pin, state, lease };
std::string_view to_string(Resource resource);

/// What a node lacks for one VM, in numbers.
struct Shortage {
  std::int64_t memory_mib = 0, disk_mib = 0;
  int cpus = 0, ports = 0;
  double load = 0;  ///< percent above the limit
  bool pinned_away = false, closed = false, away = false;
  /// True if the node fits.
  bool none() const {
    return memory_mib == 0 && disk_mib == 0 && cpus == 0 && ports == 0 && load == 0 && !pinned_away &&
           !closed && !away;
  }
};
Shortage shortage_of(const NodeFacts& node, const PlacementRequest& request, const PlacementLimits& limits);

/// How many VMs like `request` the node takes, all at once.
std::int64_t capacity_of(const NodeFacts& node, const PlacementRequest& request,
                         const PlacementLimits& limits);

/// True if `a` is to be taken before `b`, both fitting. A strict total order.
bool is_better(const NodeFacts& a, const NodeFacts& b, Policy policy);

/// The node that gets the VM; null if none fits. Pure, and independent of the order of `nodes`.
const NodeFacts* choose(const std::vector<NodeFacts>& nodes, const PlacementRequest& request,
                        const PlacementLimits& limits);

struct NodeVerdict {
  NodeFacts facts;
  bool fits = false;
  int rank = 0;                 ///< among those that fit, 1 is chosen; 0: does not fit
  std::vector<Resource> lacks;  ///< everything that stands against it
  double distance = 0;          ///< from fitting: see nearest()
  std::string reason;           ///< the arithmetic, for a person
  std::string fix;              ///< if refused: all that would have to be done for it to fit
};

/// The arithmetic of one node.
NodeVerdict explain(const NodeFacts& node, const PlacementRequest& request, const PlacementLimits& limits);

struct Plan {
  std::string node, cluster;          ///< chosen; empty: none fits
  std::vector<NodeVerdict> verdicts;  ///< of every node, those that fit by rank, then by distance
  /// "HOST: FIX" of the node that is nearest to fitting; empty if one fits or there is none.
  std::string nearest_fix() const;
  std::string explain() const;  ///< one line per node
};

/// choose(), with the reasons of every node.
Plan decide(const std::vector<NodeFacts>& nodes, const PlacementRequest& request,
            const PlacementLimits& limits);

/// Why `plan` has no node, naming the arithmetic and remedy of the nearest ones, 20 at most. Its code is
/// exhausted.
Error refusal(const Plan& plan, const PlacementRequest& request);

/// facts_of() and decide(). Errors: exhausted, see refusal().
Result<Plan> plan(const std::vector<NodeSnapshot>& nodes, const std::vector<Reservation>& reservations,
                  const PlacementRequest& request, const PlacementLimits& limits);

}  // namespace educloud::clc
