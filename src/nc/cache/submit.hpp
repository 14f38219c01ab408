#pragma once

#include <cstdint>
#include <functional>
#include <stop_token>
#include <string>
#include <vector>

#include "common/chunk/manifest.hpp"
#include "common/image/qcow2_layer.hpp"
#include "common/transfer/chunk_client.hpp"

namespace educloud::nc {

/// A changed disk to publish as a version, through the cc.
struct SubmitRequest {
  transfer::ChunkRemote remote;                   ///< of the target version; grant PUT over version_path
  std::vector<image::LayeredDisk::Layer> layers;  ///< top first; all of the disk
  std::size_t changed_layers = 1;  ///< how many of them came after the version it was made from
  chunk::DiskMap base;             ///< that version's map
  std::string parent;              ///< receipt.hpp make_parent of it
  std::string if_current;          ///< see transfer::ChunkSink::Publish
  std::string cmdid;
  int connections = 4;
  std::chrono::seconds stall_timeout{120};
};
struct SubmitReport {
  std::string receipt;
  chunk::ChunkId digest;              ///< of the manifest that was published
  std::uint64_t candidate_bytes = 0;  ///< allocated in the changed layers, read and hashed
  std::uint64_t changed_bytes = 0;    ///< of those and of the holes made, different from the base
  std::uint64_t sent_bytes = 0;       ///< frames that the store lacked
};
/// Reads, in one pass, what the changed layers hold; hashes it, asks what the store lacks, sends that,
/// publishes. The base is not read. Interrupted at any point, the same call again sends only what is still
/// missing. Retries by itself until nothing moved for stall_timeout. Memory: up to 8 MiB per connection and
/// 64 bytes per changed chunk. `on_bytes(done, total)`, from any thread: of the candidates, those known to be
/// at the store.
/// Errors: as ChunkClient; as LayeredDisk; conflict names the version that is in use now.
Result<SubmitReport> submit_changes(const SubmitRequest& request,
                                    const std::function<void(std::uint64_t, std::uint64_t)>& on_bytes,
                                    std::stop_token stop);

}  // namespace educloud::nc
