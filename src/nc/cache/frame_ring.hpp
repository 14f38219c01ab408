#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "common/chunk/frame.hpp"

namespace educloud::nc {

/// The frames that came last, whole and proven, for neighbours that ask for them a moment later. The oldest
/// go when there are more than `max_bytes`. Thread-safe.
class FrameRing {
 public:
  explicit FrameRing(std::uint64_t max_bytes) : max_bytes_(max_bytes) {}
  void put(const chunk::FrameHeader& header, std::span<const char> stored);
  /// null: not here.
  std::shared_ptr<const std::string> find(const chunk::ChunkId& id) const;
  std::uint64_t bytes() const;
  /// Gives the memory back if nothing was put since the last call.
  void trim_idle();

 private:
  /// What a frame costs beside its bytes.
  static constexpr std::uint64_t kOverhead = 192;

  const std::uint64_t max_bytes_;
  mutable std::mutex mutex_;
  std::unordered_map<chunk::ChunkId, std::shared_ptr<const std::string>, chunk::ChunkIdHash> frames_;
  std::deque<chunk::ChunkId> order_;
  std::uint64_t bytes_ = 0;
  bool was_used_ = false;
};

}  // namespace educloud::nc
