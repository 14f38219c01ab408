#include "cli/commands/limits.hpp"

#include <CLI/CLI.hpp>

namespace educloud::cli {

void add_limit_options(CLI::App& command, LimitOptions& options) {
  command
      .add_option("--cpu-percent", options.cpu_percent, "Of one cpu, 200 is two; at least 10; 0: no limit")
      ->check(CLI::Range(0, 25600));
  command.add_option("--cpu-weight", options.cpu_weight, "Share where cpus are short; 100 is the usual one")
      ->check(CLI::Range(0, 10000));
  command.add_option("--disk-iops", options.disk_iops, "Reads and writes a second; 0: no limit")
      ->check(CLI::Range(0, 10'000'000));
  command.add_option("--disk-mib-s", options.disk_mib_s, "MiB a second, read and written; 0: no limit")
      ->check(CLI::Range(0, 1'000'000));
  command.add_option("--net-mbit-s", options.net_mbit_s, "Mbit a second, each way; 0: no limit")
      ->check(CLI::Range(0, 1'000'000));
}

nlohmann::json limits_body(const LimitOptions& options) {
  auto body = nlohmann::json::object();
  const auto put = [&body](const char* key, const auto& value) {
    if (value) body[key] = *value;
  };
  put("cpu_percent", options.cpu_percent);
  put("cpu_weight", options.cpu_weight);
  put("disk_iops", options.disk_iops);
  put("disk_mib_s", options.disk_mib_s);
  put("net_mbit_s", options.net_mbit_s);
  return body;
}

std::string describe_limits(const nlohmann::json& limits) {
  std::string out;
  if (!limits.is_object()) return out;
  for (const auto& [key, value] : limits.items()) {
    if (!value.is_number_integer() || value == 0) continue;
    out += (out.empty() ? "" : ", ") + key + " " + value.dump();
  }
  return out;
}

}  // namespace educloud::cli
