#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <stop_token>

#include "common/base/result.hpp"
#include "common/chunk/chunk_store.hpp"
#include "common/chunk/manifest.hpp"
#include "common/image/progress.hpp"
#include "walrus/store/sweep.hpp"

namespace educloud::walrus {

/// A raw file, to become chunks.
struct IngestRequest {
  std::filesystem::path raw;          ///< does not change meanwhile
  std::uint64_t disk_bytes = 0;       ///< of the disk, at least the file's length: the rest is a hole
  unsigned threads = 2;               ///< each takes 18 MiB of memory
  std::uint64_t reserve_bytes = 0;    ///< stays free on the store's disk
  std::filesystem::path store_disk;   ///< any path on it; empty: `reserve_bytes` is not looked at
  InProgress* in_progress = nullptr;  ///< told what is needed until this ends
  image::OnBytes on_bytes = {};       ///< of disk_bytes
};

struct IngestResult {
  chunk::DiskMap map;
  std::uint64_t read_bytes = 0;  ///< read from the file
  std::uint64_t new_chunks = 0;  ///< that the store had not
  std::uint64_t new_bytes = 0;   ///< their frames
};

/// Reads what is data (SEEK_DATA; holes are never read), cuts it into chunks, hashes, asks the store what it
/// has, compresses and puts the rest in the disk's order, then the groups, and flushes. Chunks of zeros
/// become holes. Running it again after a crash compresses only what is not there yet. Errors: not_found,
/// exhausted (disk full), cancelled, corrupt (the file shrinks), internal.
Result<IngestResult> ingest(chunk::ChunkStore& chunks, const IngestRequest& request, std::stop_token stop);

}  // namespace educloud::walrus
