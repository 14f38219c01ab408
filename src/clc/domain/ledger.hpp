#pragma once

#include <string>
#include <string_view>

#include "clc/domain/planner.hpp"

/// The why-not ledger: what each placement was decided from. Kept are the numbers, not the sentences:
/// whoever asks gets the decision made again by the same code (decide()).
namespace educloud::clc {

inline constexpr std::size_t kLedgerNodes = 200;  ///< of one decision: the best, and the nearest to fitting

struct Decision {
  std::int64_t at = 0;  ///< unix milliseconds
  std::string tid, owner;
  std::string imgid;
  int version = 0;
  PlacementRequest request;
  PlacementLimits limits;
  std::string chosen;  ///< empty: refused
  std::vector<NodeFacts> nodes;
  int others = 0;  ///< nodes left out
};

/// Keeps `nodes` if they are at most kLedgerNodes, else those that say most.
void set_nodes(Decision& decision, std::vector<NodeFacts> nodes);

/// One line of JSON, about 90 bytes a node. `tid`, `owner`, `at` and `chosen` are not in it: they are
/// columns.
std::string serialize(const Decision& decision);
/// Errors: corrupt.
Result<Decision> parse_decision(std::string_view text);

}  // namespace educloud::clc
