#pragma once

#include <libvirt/libvirt.h>

#include <string>

#include <nlohmann/json.hpp>

#include "common/base/result.hpp"

// Private to nc/hypervisor.
namespace educloud::nc {

/// What QEMU's own monitor answers to a command. Errors: exhausted (the disk is full), internal.
Result<nlohmann::json> ask_monitor(virDomainPtr domain, const std::string& execute,
                                   const nlohmann::json& arguments = nlohmann::json::object());

}  // namespace educloud::nc
