#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <unordered_map>

#include "common/chunk/frame.hpp"

namespace educloud::nc {

/// The frames that came last, whole and proven, for neighbours that ask for them a moment later: one block of
/// `max_bytes`, written round and round, so that it never costs more than that. Thread-safe.
class FrameRing {
 public:
  explicit FrameRing(std::uint64_t max_bytes) : max_bytes_(max_bytes) {}
  void put(const chunk::FrameHeader& header, std::span<const char> stored);
  /// A copy; null: not here.
  std::shared_ptr<const std::string> find(const chunk::ChunkId& id) const;
  /// Of the frames that are here.
  std::uint64_t bytes() const;
  /// Gives the memory back if nothing was put since the last call.
  void trim_idle();

 private:
  struct Slot {
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
  };
  void drop_oldest();

  const std::uint64_t max_bytes_;
  mutable std::mutex mutex_;
  std::unique_ptr<char[]> block_;  ///< made at the first put; pages that were never written cost nothing
  std::unordered_map<chunk::ChunkId, Slot, chunk::ChunkIdHash> slots_;
  std::deque<chunk::ChunkId> order_;
  std::uint64_t write_at_ = 0;
  std::uint64_t bytes_ = 0;
  bool was_used_ = false;
};

}  // namespace educloud::nc
