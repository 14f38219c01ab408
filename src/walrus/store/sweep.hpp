#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <stop_token>
#include <thread>
#include <vector>

#include "common/chunk/chunk_store.hpp"

namespace educloud::walrus {

/// Chunks that work under way needs and no version names yet: an import's. Thread-safe.
class InProgress {
 public:
  using Ids = std::function<std::vector<chunk::ChunkId>()>;
  /// `ids` is called by sweeps until the handle is gone.
  std::shared_ptr<void> add(Ids ids);
  /// Hands all ids over.
  void visit(const std::function<void(std::span<const chunk::ChunkId>)>& live) const;

 private:
  mutable std::mutex mutex_;
  mutable std::vector<std::weak_ptr<Ids>> work_;
};

/// Marks what the versions below `prefix` and the work under way need, and lets the store remove what nobody
/// needed for `grace`. A version whose manifest or groups cannot be read stops the sweep: nothing is removed
/// as long as it is unknown what is needed.
/// Errors: corrupt (which version: fsck says more), cancelled, internal, exhausted.
Result<chunk::SweepReport> sweep(const std::filesystem::path& prefix, chunk::ChunkStore& chunks,
                                 const InProgress* in_progress, std::chrono::seconds grace,
                                 std::stop_token stop = {});

/// The same for a walrus that does not run. Errors: conflict if it does (it sweeps by itself).
Result<chunk::SweepReport> sweep_offline(const std::filesystem::path& prefix, std::chrono::seconds grace,
                                         std::stop_token stop = {});

/// Sweeps in the background: each `interval`, and soon after soon(). Keeps the metrics of the store.
class Sweeper {
 public:
  struct Options {
    std::chrono::seconds interval{3600};
    std::chrono::seconds grace{3600};
  };
  Sweeper(std::filesystem::path prefix, chunk::ChunkStore& chunks, const InProgress& in_progress,
          Options options);
  ~Sweeper();
  Sweeper(const Sweeper&) = delete;
  Sweeper& operator=(const Sweeper&) = delete;

  void start();
  /// Versions were removed. Does not wait.
  void soon();
  /// Ends a running sweep (it goes on at the next start). Idempotent.
  void stop();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace educloud::walrus
