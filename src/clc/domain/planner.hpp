#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "common/base/result.hpp"

namespace educloud::clc {

struct PlacementLimits {
  double max_cpu_usage = 80;        ///< percent; a node busier than this gets no new VM; 100: never refused
  double cpu_overcommit = 4;        ///< virtual cpus per real one
  std::int64_t reserve_mib = 2048;  ///< memory that stays for the host
  std::int64_t min_disk_mib = 10 * 1024;  ///< disk that stays free
  std::int64_t max_age_ms = 15'000;       ///< of a heartbeat
};

/// What the planner knows of one node: its registration and its last heartbeat.
struct NodeSnapshot {
  std::string host, cluster;
  bool enabled = true;
  std::int64_t age_ms = -1;   ///< of the last heartbeat; -1: none
  bool cluster_alive = true;  ///< its cc is heard of
  int cpus = 0;
  double cpu_usage = 0;
  std::int64_t mem_mib = 0, mem_usage_mib = 0;
  std::int64_t disk_mib = 0, disk_usage_mib = 0;
  bool has_image = false;                            ///< the version wanted is in its cache
  std::map<std::string, std::int64_t> resident_mib;  ///< insid -> memory its VM has really taken
};

/// Capacity promised to a task that is open.
struct Reservation {
  std::string node, insid;
  std::int64_t memory_mib = 0;
  int cpus = 0;
};

struct PlacementRequest {
  std::string insid;  ///< reservations of its own do not count against it
  std::int64_t memory_mib = 0;
  int cpus = 1;
  std::int64_t image_mib = 0;  ///< to be fetched if the node does not have it
  std::string cluster_pin, node_pin;
};

struct NodeVerdict {
  std::string host;
  bool fits = false;
  std::string reason;  ///< the arithmetic, for a person
  std::string fix;     ///< if refused: the nearest thing that would help
};

struct Plan {
  std::string node, cluster;          ///< chosen
  std::vector<NodeVerdict> verdicts;  ///< of every node considered, by name
  std::string explain() const;        ///< one line per node
};

/// Chooses a node: of those that fit, one that has the image; then the one with most memory left; then
/// by name. Pure and deterministic.
/// Errors: exhausted; the message names each node's arithmetic and the nearest fix.
Result<Plan> plan(const std::vector<NodeSnapshot>& nodes, const std::vector<Reservation>& reservations,
                  const PlacementRequest& request, const PlacementLimits& limits);

}  // namespace educloud::clc
