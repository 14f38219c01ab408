#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <vector>

#include "common/chunk/frame.hpp"
#include "nc/cache/fill_state.hpp"

namespace educloud::nc {

/// What a fill has done so far. Any thread.
struct FillCounters {
  std::atomic<std::uint64_t> total_bytes{0};  ///< of the disk, to be fetched
  std::atomic<std::uint64_t> done_bytes{0};   ///< of those, written
  std::atomic<std::uint64_t> unsynced_bytes{0};
  std::atomic<std::uint64_t> cc_bytes{0}, peer_bytes{0};  ///< stored bytes of frames that came
  std::atomic<std::uint64_t> local_bytes{0};              ///< copied from the base
  std::atomic<std::int64_t> moved_at_ms{0};               ///< steady clock, of the last chunk written
};

/// Brings proven chunks into the file, several at once where they lie side by side. One per thread.
class ChunkWriter {
 public:
  ChunkWriter(FillState& state, FillCounters& counters);

  /// Unpacks and proves a frame and takes its content as `chunk`. Errors: corrupt (the frame), or of the
  /// disk: then disk_error() is set.
  Result<> add_frame(std::uint64_t chunk, const chunk::FrameHeader& header, std::span<const char> stored);
  /// Reads chunk `from` of the base and takes it, if it is what it should be. Errors: corrupt, or of the
  /// disk.
  Result<> add_copy(std::uint64_t chunk, std::uint64_t from);
  /// Writes and marks what was taken. Errors: exhausted, internal.
  Result<> flush();
  const std::optional<Error>& disk_error() const { return disk_error_; }

 private:
  static constexpr std::size_t kBufferBytes = std::size_t{16} * chunk::kChunkBytes;

  Result<std::span<char>> slot_for(std::uint64_t chunk);
  Result<> keep(std::uint64_t chunk, std::span<char> slot, std::uint32_t length);
  Result<> failed(Result<> done);

  FillState& state_;
  FillCounters& counters_;
  chunk::FrameDecoder decoder_;
  AlignedBuffer buffer_;
  std::size_t used_ = 0;
  std::uint64_t offset_ = 0;             ///< in the file, of the buffer's begin
  std::vector<std::uint64_t> buffered_;  ///< chunks in the buffer
  std::vector<std::uint64_t> repeated_;  ///< written already, not marked
  std::optional<Error> disk_error_;
};

}  // namespace educloud::nc
