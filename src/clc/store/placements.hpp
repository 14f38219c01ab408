#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "clc/domain/ledger.hpp"
#include "clc/store/sql.hpp"

/// The why-not ledger, and what stands at the nodes' boot gates.
namespace educloud::clc::store {

inline constexpr int kPlacementRows = 10'000;

/// The newest decision of its task is kept, the one before is forgotten.
void put_placement(Sql& sql, const Decision& decision);
/// Errors as Abort: corrupt.
std::optional<Decision> find_placement(Sql& sql, std::string_view tid);
/// The newest of the instance's tasks.
std::optional<Decision> find_placement_of_instance(Sql& sql, std::string_view insid);
/// All but the newest kPlacementRows.
void trim_placements(Sql& sql);

/// When each image/run that `node` has not answered was queued, unix milliseconds.
std::vector<std::int64_t> boots_on(Sql& sql, std::string_view node);
/// Row ids of the tasks that wait for `node`'s gate: servers first, as desktops may need them, then oldest.
std::vector<std::int64_t> waiting_at_gate(Sql& sql, std::string_view node);
/// Nodes somebody waits for.
std::vector<std::string> gated_nodes(Sql& sql);

struct QueuePlace {
  int place = 0;  ///< 1: next
  int length = 0;
};
/// Of `task`, which waits. Its row must be stored.
QueuePlace queue_place(Sql& sql, const Task& task);

/// Row ids of desktops on drained nodes that run or boot and have not been told to stop, nor when, or have
/// not got as far, and of those whose time has come by `now_ms`; 500 at most.
std::vector<std::int64_t> to_drain(Sql& sql, std::int64_t now_ms);

}  // namespace educloud::clc::store
