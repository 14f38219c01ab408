#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <stop_token>
#include <string>

#include "common/chunk/chunk_id.hpp"
#include "common/transfer/chunk_routes.hpp"

// Private to cc/disks: a version becomes a file.
namespace educloud::cc {

/// What a disk is first made from.
struct DiskSource {
  std::string imgid;
  int version = 0;
  chunk::ChunkId digest;  ///< of the manifest
  std::uint64_t disk_bytes = 0;
};

/// Makes `file`, raw and sparse, with the version's content; every chunk is proven. The file is seen only
/// when it is complete and durable; what an interrupted call left (`file`.part) is begun again, from the
/// cache. Its length is disk_bytes rounded up to 512, as a disk has whole sectors. `node` is whom it is for.
/// Errors: those of the source; corrupt (not the version that clc knows); exhausted (no room); cancelled.
Result<> fill_disk(transfer::ChunkSource& chunks, const DiskSource& source, const std::string& node,
                   const std::filesystem::path& file,
                   const std::function<void(std::uint64_t done, std::uint64_t total)>& on_bytes,
                   std::stop_token stop);

}  // namespace educloud::cc
