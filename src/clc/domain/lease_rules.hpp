#pragma once

#include <cstdint>
#include <string>

#include "clc/domain/types.hpp"

/// When a node is granted its lease, when it is lost, and what then becomes of its tasks. All pure; ages are
/// of CLOCK_BOOTTIME.
namespace educloud::clc {

inline constexpr std::int64_t kGrantEveryMs = 5'000;
inline constexpr std::int64_t kSuspectMs =
    15'000;                                      ///< silent for longer: no new grant, nothing new is placed
inline constexpr std::int64_t kLostMs = 60'000;  ///< silent for longer: lost
/// Its cc must have been heard of for so long before a lost node's desktops start elsewhere: one whose broker
/// or cc was away has to have had the time to come back.
inline constexpr std::int64_t kSettleMs = 30'000;
/// A pause of our own after which silence says nothing about the nodes.
inline constexpr std::int64_t kOwnGapMs = 10'000;
/// So often a node is looked for, for a desktop that finds none.
inline constexpr int kRelocateTries = 30;

/// Until the next look for a node, after `tries` of them.
std::int64_t relocate_after_ms(int tries);

/// What is to be done about an open task of a lost node.
enum class LostPlan {
  nothing,  ///< it is the user's turn, or all is said
  wait,     ///< what it made lies on that node: it goes on when the node is back
  stop,     ///< it was to stop: it is stopped
  end,      ///< it was to go: it is gone
  move,     ///< a desktop: it begins again on another node
};
LostPlan lost_plan(const Task& task);

/// How the errormsg of a task begins that waits for a lost node.
std::string lost_text(const std::string& node);

}  // namespace educloud::clc
