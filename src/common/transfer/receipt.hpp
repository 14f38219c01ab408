#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "common/base/result.hpp"

namespace educloud::transfer {

/// What walrus published. Hosts on the way (cc, nc) hand it on but cannot make or change one unnoticed by
/// whoever holds data_key (clc checks it before it believes in a new version).
struct Receipt {
  std::string imgid;
  int version = 0;
  std::string digest;                   ///< SHA-256 of the manifest, hex: proves everything in the disk
  std::int64_t size_bytes = 0;          ///< data in the disk, holes not counted
  std::int64_t virtual_size_bytes = 0;  ///< of the disk
  std::string format;                   ///< always "raw": what is chunked is the disk as the guest sees it
  std::string parent;                   ///< "<imgid>/<version>" the content was made from; empty: none
  std::string cmdid;                    ///< command that ordered it

  bool operator==(const Receipt&) const = default;
};

/// One line of printable ASCII, at most 512 bytes: fits TaskStatus.receipt.
std::string sign_receipt(std::string_view data_key, const Receipt& receipt);

/// Errors: permission_denied (signature), invalid_argument (not a receipt at all).
Result<Receipt> verify_receipt(std::string_view data_key, std::string_view text);

/// "IMG01234567/3", and the check of one; "" is allowed (no parent). Errors: invalid_argument.
std::string make_parent(std::string_view imgid, int version);
Result<> check_parent(std::string_view parent);

}  // namespace educloud::transfer
