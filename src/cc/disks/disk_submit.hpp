#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <stop_token>
#include <string>

#include "common/transfer/chunk_client.hpp"

// Private to cc/disks: a file becomes a version.
namespace educloud::cc {

/// Reads the data of a raw file that nobody writes to, hashes it, sends what walrus lacks and publishes.
/// Returns the receipt. Nothing is tried twice: the same call again reads all but sends only what is missing.
/// `remote`: walrus, with leave to make the version. Memory: 16 MiB. Errors: as ChunkClient; cancelled.
Result<std::string> submit_disk(const std::filesystem::path& file, const transfer::ChunkRemote& remote,
                                transfer::ChunkClient::Publish publish,
                                const std::function<void(std::uint64_t done, std::uint64_t total)>& on_bytes,
                                std::stop_token stop);

}  // namespace educloud::cc
