#pragma once

#include <cstdint>
#include <string>

#include <nlohmann/json.hpp>

#include "common/base/result.hpp"

namespace educloud::cli {

/// "2026-11-21T09:00" on this host's clock, as unix milliseconds. Errors: invalid_argument.
Result<std::int64_t> parse_local_time(const std::string& text);

/// A dry run, as the API answered it, for a person. Pure.
std::string describe_plan(const nlohmann::json& plan);

/// Why a task is where it is, or is not, as the API answered it, for a person. Pure.
std::string describe_why(const nlohmann::json& why);

}  // namespace educloud::cli
