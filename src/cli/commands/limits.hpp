#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

namespace CLI {
class App;
}

namespace educloud::cli {

/// What a VM may take of its node, as options: those that are not given are not spoken of.
struct LimitOptions {
  std::optional<int> cpu_percent, cpu_weight;
  std::optional<std::int64_t> disk_iops, disk_mib_s, net_mbit_s;
};
void add_limit_options(CLI::App& command, LimitOptions& options);

/// As the API takes them. Pure.
nlohmann::json limits_body(const LimitOptions& options);

/// "cpu_percent 150, disk_iops 500" of the API's limits, those that are 0 left out. Pure.
std::string describe_limits(const nlohmann::json& limits);

}  // namespace educloud::cli
