#pragma once

#include <atomic>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "common/transfer/chunk_routes.hpp"
#include "walrus/store/publish.hpp"

namespace educloud::walrus {

/// What the chunk protocol reads at walrus: manifests from the versions, frames from the store as they are.
class StoreSource : public transfer::ChunkSource {
 public:
  StoreSource(const image::VersionStore& versions, chunk::ChunkStore& chunks)
      : versions_(versions), chunks_(chunks) {}
  Result<std::string> manifest(const transfer::ChunkCaller& caller, std::stop_token stop) override;
  Result<std::unique_ptr<Reading>> read(const transfer::ChunkCaller& caller, std::vector<chunk::ChunkId> ids,
                                        std::stop_token stop) override;

 private:
  const image::VersionStore& versions_;
  chunk::ChunkStore& chunks_;
};

/// What it writes. Nothing gets into the store before its SHA-256 is proven.
class StoreSink : public transfer::ChunkSink {
 public:
  struct Options {
    std::filesystem::path prefix;
    std::uint64_t reserve_bytes = 0;  ///< stays free on the disk of `prefix`
    std::string data_key;             ///< signs receipts
    /// A host published a version.
    std::function<void(const transfer::Receipt&)> on_published = {};
  };
  StoreSink(chunk::ChunkStore& chunks, Publisher& publisher, Options options)
      : chunks_(chunks), publisher_(publisher), options_(std::move(options)) {}

  Result<std::vector<bool>> missing(const transfer::ChunkCaller& caller,
                                    std::vector<chunk::ChunkId> ids) override;
  Result<> store(const transfer::ChunkCaller& caller, const chunk::FrameHeader& header,
                 std::span<const char> stored) override;
  Result<> stored(const transfer::ChunkCaller& caller) override;
  Result<std::string> publish(const transfer::ChunkCaller& caller, const Publish& request,
                              std::stop_token stop) override;

 private:
  Result<> check_room();

  chunk::ChunkStore& chunks_;
  Publisher& publisher_;
  const Options options_;
  std::atomic<std::int64_t> until_look_ = 0;  ///< bytes that may come before the disk is looked at again
  std::atomic<std::uint64_t> received_ = 0;   ///< not yet in the metrics
};

}  // namespace educloud::walrus
