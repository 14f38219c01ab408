#pragma once

#include <filesystem>
#include <stop_token>

#include "common/chunk/chunk_store.hpp"

namespace educloud::cc {

/// The cache is not synced to disk, so a power cut may have damaged what was written last. If the host was
/// started anew since the last full look, everything is read and checked once, and what is damaged forgotten,
/// to be fetched again. `marker`: a file that names the boot that was looked at. Blocks for as long as
/// reading takes, or until `stop`.
void check_after_reboot(chunk::ChunkStore& store, const std::filesystem::path& marker, std::stop_token stop);

}  // namespace educloud::cc
