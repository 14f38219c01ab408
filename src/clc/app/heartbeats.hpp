#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "clc/domain/planner.hpp"
#include "clc/domain/types.hpp"
#include "common/base/clock.hpp"
#include "common/bus/bus.hpp"
#include "common/msg/host_status.hpp"
#include "common/msg/inventory.hpp"

namespace educloud::clc {

/// The last heartbeat of every node and cc, in memory: nothing here is worth keeping over a restart,
/// the next one comes within 5 s.
class Heartbeats {
 public:
  static constexpr std::size_t kHosts = 4000;     ///< remembered; more unknown ones are ignored
  static constexpr std::int64_t kGapMs = 15'000;  ///< a cc that was silent for longer was away
  static constexpr double kBusyCpu = 5;           ///< percent of one cpu: a VM that uses less does nothing

  explicit Heartbeats(const Clock& clock) : clock_(clock), since_boot_ms_(clock.boot_ms()) {}

  /// Consumes `clc_heartbeat_queue`. `bus` must be stopped before this object goes.
  void subscribe(bus::Bus& bus);
  /// What to do with the parts of inventories, which come the same way; on the bus's thread. Not while
  /// messages come.
  void on_inventory(std::function<void(msg::Inventory)> take) { on_inventory_ = std::move(take); }
  /// One message. Malformed ones and those not sent by the cc they name are rejected.
  bus::Verdict take(const bus::Delivery& delivery);

  struct NodeBeat {
    msg::NodeStatus status;
    std::string cluster;  ///< the cc that relayed it
    std::int64_t age_ms = 0;
  };
  struct ClusterBeat {
    msg::CcStatus status;
    std::int64_t age_ms = 0;
  };
  /// Of the node under that cluster.
  std::optional<NodeBeat> node(const std::string& host, const std::string& cluster) const;
  std::vector<NodeBeat> nodes() const;
  struct Boot {
    std::string host, cluster;
    std::int64_t at = 0;  ///< ServiceData::booted_at
  };
  /// Of those nodes that tell it.
  std::vector<Boot> boots() const;
  struct Guest {
    std::string address;       ///< of its node
    std::string hostname, ip;  ///< as its agent told the node; empty: there is none. Words of a guest
  };
  /// What is known of a VM of that node; without copying all that the node said.
  Guest guest(const std::string& host, const std::string& cluster, std::string_view insid) const;
  /// For how long each heartbeat of that node has told of the VM that it runs and does nothing; 0: it does
  /// something, or nothing is known of it.
  std::int64_t idle_ms(const std::string& host, const std::string& cluster, std::string_view insid) const;
  /// How long nothing was heard of the node under that cluster; since our own start, if nothing ever was.
  std::int64_t silence_ms(const std::string& host, const std::string& cluster) const;
  /// True if a heartbeat of the node under that cluster came within `max_age_ms`.
  bool is_heard(const std::string& host, const std::string& cluster, std::int64_t max_age_ms) const;
  std::optional<ClusterBeat> cluster(const std::string& host) const;
  /// How long that cc has been heard of without a gap of kGapMs; 0: it is silent now.
  std::int64_t cluster_heard_for_ms(const std::string& host) const;

  /// What the planner needs of `nodes`, with whether they have that version.
  std::vector<NodeSnapshot> snapshots(const std::vector<Node>& nodes, const std::string& imgid, int version,
                                      std::int64_t max_age_ms) const;

 private:
  bus::Verdict take_node(const bus::Delivery& delivery);
  bus::Verdict take_cluster(const bus::Delivery& delivery);
  bus::Verdict take_inventory(const bus::Delivery& delivery);
  std::int64_t age(std::int64_t at_boot_ms) const { return clock_.boot_ms() - at_boot_ms; }

  struct NodeEntry {
    msg::NodeStatus status;
    std::int64_t at_boot_ms = 0;
    /// Of each VM in `status`: when it was last seen at work, or first seen.
    std::map<std::string, std::int64_t, std::less<>> busy_at;
  };
  struct ClusterEntry {
    msg::CcStatus status;
    std::int64_t at_boot_ms = 0;
    std::int64_t since_boot_ms = 0;  ///< heard of without a gap since
  };
  std::function<void(msg::Inventory)> on_inventory_ = [](const msg::Inventory&) {};
  const Clock& clock_;
  const std::int64_t since_boot_ms_;
  mutable std::mutex mutex_;
  // By (cluster, host): a cc cannot speak for the nodes of another.
  std::map<std::pair<std::string, std::string>, NodeEntry> nodes_;
  std::map<std::string, ClusterEntry> clusters_;
};

}  // namespace educloud::clc
