#pragma once

#include <array>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "common/base/random.hpp"
#include "sim/bus/broker.hpp"
#include "sim/world/cc_host.hpp"
#include "sim/world/clc_host.hpp"
#include "sim/world/nc_host.hpp"
#include "sim/world/users.hpp"
#include "sim/world/walrus_host.hpp"

namespace educloud::sim {

/// What may befall a run: the order in which `FaultCounts` counts.
inline constexpr std::array kFaults{"crash",  "reboot", "broker", "wipe",  "block",     "cut",     "hang_up",
                                    "unbind", "guest",  "clock",  "pause", "duplicate", "reorder", "lose"};
using FaultCounts = std::array<std::uint64_t, kFaults.size()>;

/// How a run went.
struct Outcome {
  std::string defect;  ///< empty: every property held
  std::uint64_t digest = 0, events = 0;
  std::int64_t virtual_ms = 0;
  FaultCounts faults{};
};

struct RunOptions {
  std::filesystem::path folder;  ///< scratch, best on a tmpfs; the run empties it
  bool faults = true;
  std::function<void(const std::string&)> on_line;  ///< the story; empty: not told
};

/// Everything of one run: broker, hosts, users.
struct World {
  explicit World(std::uint64_t seed, const RunOptions& options);

  Timeline timeline;
  HostClock id_clock{timeline, 0};
  RepeatableRandom ids;
  Rng rng;
  Surroundings surroundings;
  std::string defect;  ///< the first one
  FaultCounts faults{};
  Broker broker;
  std::vector<std::string> images;
  WalrusHost walrus;
  std::unique_ptr<ClcHost> clc;
  std::vector<std::unique_ptr<CcHost>> ccs;
  std::vector<std::unique_ptr<NcHost>> ncs;
  std::unique_ptr<Users> users;
  bool tight = false;  ///< more is wanted than the nodes have

  std::vector<Host*> hosts();
  /// Until `end_ms`, a defect, or `done` says so (looked at each virtual second).
  void run_until(std::int64_t end_ms, const std::function<bool()>& done = {});

 private:
  void lay_out(const RunOptions& options);
};

/// One cloud's whole life from one seed: started, used under faults, healed, settled, left by its users.
Outcome run_world(std::uint64_t seed, const RunOptions& options);

}  // namespace educloud::sim
