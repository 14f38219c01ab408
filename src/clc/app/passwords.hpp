#pragma once

#include <string>
#include <string_view>

#include "common/base/result.hpp"

namespace educloud::clc {

/// argon2id (libsodium), 19 MiB and 2 passes, about 30 ms. Errors: exhausted (no memory).
Result<std::string> hash_password(std::string_view password);
/// At most two at once in this process, so that a flood of logins costs neither all memory nor all cpus.
bool password_matches(const std::string& hash, std::string_view password);
/// A hash that no password matches, for names that do not exist: the answer takes as long.
const std::string& nobodys_hash();

/// crypt(3)'s SHA-512 with 20,000 rounds, about 20 ms: the one that every guest's login reads, busybox's too.
/// Errors: internal.
Result<std::string> guest_password_hash(std::string_view password);

/// What stands in the database for a token: BLAKE2b-256, hex.
std::string token_hash(std::string_view token);

}  // namespace educloud::clc
