#pragma once

#include <string>

#include "common/base/result.hpp"

namespace educloud::cli {

/// A new ed25519 key pair as OpenSSH's private key file holds it, without passphrase and without the last
/// newline.
std::string make_ssh_key();

/// "ssh-ed25519 AAAA...": the public half of what `make_ssh_key` made. Errors: corrupt.
Result<std::string> ssh_public_key(const std::string& private_key);

}  // namespace educloud::cli
