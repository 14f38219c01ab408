#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "clc/app/engine.hpp"
#include "clc/domain/reconcile.hpp"
#include "clc/store/store.hpp"

namespace educloud::clc {

/// Compares what nodes say they hold with what we know, and mends: sends again what is missing or was
/// not heard, goes on from where a node is ahead of a restored database, ends what is nobody's. Ports of
/// instances without an open task are freed. `take` from any thread, `run` from one.
class Reconciler {
 public:
  /// A port without an owner is freed when it was seen so for this long.
  static constexpr std::int64_t kPortMs = 10 * 60'000;
  /// The same farewell is not said again sooner.
  static constexpr std::int64_t kFarewellMs = 120'000;
  static constexpr int kMaxParts = 40;

  Reconciler(store::Store& store, Engine& engine, const Clock& clock)
      : store_(store), engine_(engine), clock_(clock) {}

  /// One part of a round, from the cc of `part.ccid` (the sender was checked).
  void take(msg::Inventory part);
  /// Compares the rounds that have become complete; once a minute looks at the ports.
  Result<> run();

 private:
  using NodeKey = std::pair<std::string, std::string>;  ///< cluster, host
  struct Round {
    std::string id;
    std::set<int> parts;
    Holdings holdings;
  };

  Result<> compare(const Holdings& holdings);
  /// Those of `fixes` that are due now: orphans only when seen for kOrphanMs, farewells not too often.
  std::vector<Fix> due(const Holdings& holdings, std::vector<Fix> fixes);
  Result<> mend(const Holdings& holdings, const std::vector<Fix>& fixes, const Knowledge& knowledge);
  Result<> mend_one(store::Sql& sql, const Holdings& holdings, const Fix& fix, const Knowledge& knowledge);
  Result<> sweep_ports();

  store::Store& store_;
  Engine& engine_;
  const Clock& clock_;
  std::mutex mutex_;
  std::map<NodeKey, Round> rounds_;    // under mutex_: not complete yet
  std::map<NodeKey, Holdings> ready_;  // under mutex_
  // Only of run's thread; boot_ms of the first or last time, by node and task.
  std::map<std::pair<NodeKey, std::string>, std::int64_t> orphans_, farewells_;
  struct LetGo {
    std::string node, cmdid;
    bool operator==(const LetGo&) const = default;
  };
  std::map<std::string, LetGo> let_go_;        ///< by tid: of each node's last round
  std::map<std::string, std::int64_t> ports_;  ///< insid -> boot_ms when its ports were first seen unowned
  std::int64_t ports_at_boot_ms_ = 0;
};

}  // namespace educloud::clc
