#pragma once

#include <optional>

#include "clc/domain/types.hpp"

/// What may be asked for a VM: its limits, and what its guest is told at the first boot. Pure.
namespace educloud::clc {

/// Those that are given; 0 gives an instance back its type's.
struct LimitsChange {
  std::optional<int> cpu_percent, cpu_weight;
  std::optional<std::int64_t> disk_iops, disk_mib_s, net_mbit_s;
};
msg::Limits changed(msg::Limits limits, const LimitsChange& change);

/// What an instance may take: its own limits, its type's where they are 0.
msg::Limits effective_limits(const msg::Limits& own, const msg::Limits& type);

/// Errors: invalid_argument naming the key, if a guest could not even shut down under them.
Result<> check_limits(const msg::Limits& limits);

/// The key of the first limit that lets an instance take more than its type does; empty: none.
std::string_view exceeding(const msg::Limits& own, const msg::Limits& type);

/// What somebody wants a guest to be told when it boots for the first time. Empty texts: nothing.
struct NewFirstBoot {
  std::string hostname;
  std::string user;
  std::string ssh_key;   ///< one line of authorized_keys
  std::string password;  ///< secret; only its hash is kept
};

/// Errors: invalid_argument naming the key; never with a secret in it.
Result<> check_first_boot(const NewFirstBoot& wanted);

/// Name of a VM type or OS type: a-z, 0-9, '-' and '_', at most 40, a letter first. Errors: invalid_argument.
Result<> check_type_name(std::string_view name);

/// virtiofs, smb, or empty: its OS type's. Errors: invalid_argument.
Result<> check_folder_protocol(std::string_view text);

/// `snap-` and 8 hex digits. Errors: invalid_argument.
Result<> check_snapshot_id(std::string_view text);

}  // namespace educloud::clc
