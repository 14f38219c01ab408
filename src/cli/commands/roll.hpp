#pragma once

#include <set>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace educloud::cli {

/// Instance ids of what runs or is paused on a node, as the API shows it.
std::set<std::string> vms_of(const nlohmann::json& node);

/// The node is up and began later than `before` says: its host, else its daemon.
bool has_restarted(const nlohmann::json& before, const nlohmann::json& now, bool host);

/// What ran before and does not run now.
std::vector<std::string> missing_vms(const nlohmann::json& before, const nlohmann::json& now);

/// False for a VM that, as /vms shows it, need not come back on `host`: somebody has stopped, submitted or
/// moved it meanwhile.
bool is_awaited(const nlohmann::json& vm, const std::string& host);

}  // namespace educloud::cli
