#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <vector>

#include "common/base/ids.hpp"
#include "common/base/result.hpp"

/// What nc and its watchdog both read and write, below nc's state directory.
namespace educloud::nc {

/// boot_ms of the last grant. Written whole or not at all, without a sync: after a reboot it is worth
/// nothing.
Result<> write_lease_file(const std::filesystem::path& state_dir, std::int64_t boot_ms);
/// nullopt: there is none, or it cannot be read.
std::optional<std::int64_t> read_lease_file(const std::filesystem::path& state_dir);

/// exclusive/<insid>: a VM that must end with the lease is there, or may be. Noted before it is started, and
/// struck out once it has ended.
Result<> note_exclusive(const std::filesystem::path& state_dir, const InstanceId& insid);
void strike_exclusive(const std::filesystem::path& state_dir, const InstanceId& insid);
std::vector<InstanceId> read_exclusive(const std::filesystem::path& state_dir);

}  // namespace educloud::nc
