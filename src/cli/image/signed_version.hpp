#pragma once

#include <nlohmann/json.hpp>

#include "common/base/result.hpp"
#include "common/chunk/chunk_id.hpp"
#include "common/transfer/chunk_client.hpp"

namespace educloud::cli {

/// A version at walrus and the leave to read it, from what the API says.
struct SignedVersion {
  transfer::ChunkRemote remote;
  chunk::ChunkId digest;         ///< of its manifest
  std::uint64_t disk_bytes = 0;  ///< of the guest's disk
  std::uint64_t data_bytes = 0;  ///< of it that is no hole
  std::string url;               ///< of the whole disk, signed: what curl takes
  std::string manifest_url;      ///< the same of the manifest
};

/// Checks the server's answer to POST .../versions/{n}/url, because the grant is sent to the address it
/// names. Pure. Errors: internal.
Result<SignedVersion> parse_signed_version(const nlohmann::json& answer);

}  // namespace educloud::cli
