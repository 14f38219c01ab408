#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "clc/domain/types.hpp"
#include "clc/store/sql.hpp"

namespace educloud::clc::store {

/// Oldest first.
std::vector<Snapshot> list_snapshots(Sql& sql, std::string_view insid);
/// Of that instance and no other.
std::optional<Snapshot> find_snapshot(Sql& sql, std::string_view insid, std::string_view snapid);
/// True if any instance has one of that id.
bool is_snapshot(Sql& sql, std::string_view snapid);
int count_snapshots(Sql& sql, std::string_view insid);
void add_snapshot(Sql& sql, const Snapshot& one);
/// Its state and error.
void update_snapshot(Sql& sql, const Snapshot& one);
void remove_snapshot(Sql& sql, std::string_view snapid);
/// All of an instance.
void remove_snapshots(Sql& sql, std::string_view insid);

}  // namespace educloud::clc::store
