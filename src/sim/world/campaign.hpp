#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "sim/world/world.hpp"

namespace educloud::sim {

struct CampaignOptions {
  std::uint64_t first = 1, count = 1;
  int jobs = 1;  ///< processes
  bool faults = true;
  std::filesystem::path scratch;     ///< below it each process works
  std::uint64_t most_failures = 10;  ///< enough to look at: then it ends
};

struct Failure {
  std::uint64_t seed = 0;
  std::string defect;
};

struct CampaignReport {
  std::uint64_t runs = 0;
  std::uint64_t events = 0;
  double virtual_hours = 0, seconds = 0;
  FaultCounts faults{};
  std::vector<Failure> failures;  ///< by seed
};

/// Runs many seeds, in processes of their own so that one that dies is a failure with its seed too.
CampaignReport run_campaign(const CampaignOptions& options);

/// A tmpfs if there is one: a run syncs its databases thousands of times.
std::filesystem::path default_scratch();

}  // namespace educloud::sim
