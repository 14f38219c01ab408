#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "clc/app/engine.hpp"
#include "clc/domain/lease_rules.hpp"
#include "clc/store/store.hpp"
#include "common/bus/bus.hpp"
#include "common/msg/lease.hpp"

namespace educloud::clc {

/// Grants nodes their leases, every 5 s, while they are heard of; declares those lost that are silent for a
/// minute, and brings their desktops up elsewhere. One thread.
class Leases {
 public:
  Leases(store::Store& store, Engine& engine, Heartbeats& heartbeats, bus::Bus& bus, const Clock& clock)
      : store_(store),
        engine_(engine),
        heartbeats_(heartbeats),
        bus_(bus),
        clock_(clock),
        watching_since_(clock.boot_ms()),
        ticked_at_(clock.boot_ms()) {}

  /// Once a second.
  Result<> tick();

 private:
  void grant(const std::vector<Node>& nodes);
  void send(const std::string& cluster, std::vector<msg::LeaseGrant> grants);
  Result<> judge(const std::vector<Node>& nodes);
  Result<> bring_on(const Node& node);
  Result<> bring_on(const Task& task);
  std::int64_t silence_ms(const Node& node) const;

  struct Search {
    int tries = 0;
    std::int64_t next_at = 0;  ///< boot_ms
  };
  store::Store& store_;
  Engine& engine_;
  Heartbeats& heartbeats_;
  bus::Bus& bus_;
  const Clock& clock_;
  std::int64_t watching_since_;  ///< boot_ms: silence before then was ours
  std::int64_t ticked_at_;
  std::int64_t granted_at_ = 0;
  std::set<std::string> suspects_;
  std::map<std::int64_t, Search> searches_;  ///< by row of the task that looks for a node
};

}  // namespace educloud::clc
