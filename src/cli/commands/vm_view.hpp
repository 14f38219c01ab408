#pragma once

#include <string>

#include <nlohmann/json.hpp>

namespace educloud::cli {

/// Puts `display_address` ("10.0.0.3:5900"), `display_password` and `web_url` at the top of a VM as the API
/// shows it, null while it has none: what scripts ask for most. Pure.
void add_addresses(nlohmann::json& vm);

/// The VM for a person.
std::string describe_vm(const nlohmann::json& vm);

}  // namespace educloud::cli
