#include "nc/cache/chunk_writer.hpp"

#include <algorithm>
#include <cstring>

namespace educloud::nc {

ChunkWriter::ChunkWriter(FillState& state, FillCounters& counters)
    : state_(state), counters_(counters), buffer_(make_aligned(kBufferBytes)) {}

Result<> ChunkWriter::failed(Result<> done) {
  if (!done && !disk_error_) disk_error_ = done.error();
  return done;
}

Result<std::span<char>> ChunkWriter::slot_for(std::uint64_t chunk) {
  const auto offset = state_.target->offset_of(chunk);
  if (used_ > 0 && (offset != offset_ + used_ || used_ + chunk::kChunkBytes > kBufferBytes)) {
    if (auto done = flush(); !done) return fail(done.error());
  }
  if (used_ == 0) offset_ = offset;
  return std::span<char>(buffer_.get() + used_, chunk::kChunkBytes);
}

Result<> ChunkWriter::keep(std::uint64_t chunk, std::span<char> slot, std::uint32_t length) {
  const auto in_file = state_.target->length_of(chunk);
  if (length < in_file) std::memset(slot.data() + length, 0, in_file - length);
  const auto& repeats = state_.plan.repeats;
  auto repeat = std::lower_bound(repeats.begin(), repeats.end(), chunk,
                                 [](const FillPlan::Repeat& one, std::uint64_t of) { return one.of < of; });
  for (; repeat != repeats.end() && repeat->of == chunk; ++repeat) {
    if (state_.marks->test(repeat->chunk)) continue;
    auto done = failed(state_.target->write(state_.target->offset_of(repeat->chunk), slot.first(in_file)));
    if (!done) return done;
    repeated_.push_back(repeat->chunk);
  }
  buffered_.push_back(chunk);
  used_ += in_file;
  // A short chunk is the disk's last: nothing can follow it in the buffer.
  if (in_file != chunk::kChunkBytes || used_ == kBufferBytes) return flush();
  return {};
}

Result<> ChunkWriter::add_frame(std::uint64_t chunk, const chunk::FrameHeader& header,
                                std::span<const char> stored) {
  const auto length = chunk::chunk_length(state_.plan.disk_bytes, chunk);
  if (header.id != state_.wanted.at(chunk) || header.raw_bytes != length)
    return fail(ErrorCode::corrupt, "frame " + header.id.hex() + " is not the chunk asked for");
  auto slot = slot_for(chunk);
  if (!slot) return fail(slot.error());
  if (auto proven = decoder_.decode(header, stored, *slot); !proven) return proven;
  return keep(chunk, *slot, length);
}

Result<> ChunkWriter::add_copy(std::uint64_t chunk, std::uint64_t from) {
  const auto length = chunk::chunk_length(state_.plan.disk_bytes, chunk);
  auto slot = slot_for(chunk);
  if (!slot) return fail(slot.error());
  const auto content = slot->first(length);
  if (auto done = state_.base->read(from * chunk::kChunkBytes, content); !done)
    return fail(ErrorCode::corrupt, done.error().message);
  const auto id = chunk::ChunkId::of(content);
  if (id != state_.wanted.at(chunk))
    return fail(ErrorCode::corrupt, "chunk " + std::to_string(from) + " of the base is damaged");
  counters_.local_bytes += length;
  return keep(chunk, *slot, length);
}

Result<> ChunkWriter::flush() {
  if (used_ > 0) {
    auto done = failed(state_.target->write(offset_, {buffer_.get(), used_}));
    if (!done) return done;
  }
  if (buffered_.empty() && repeated_.empty()) return {};
  std::uint64_t written = 0, fetched = 0;
  for (const auto at : buffered_) {
    if (!state_.marks->set(at)) continue;
    const auto length = chunk::chunk_length(state_.plan.disk_bytes, at);
    written += length;
    if (std::binary_search(state_.plan.fetch.begin(), state_.plan.fetch.end(), at)) fetched += length;
  }
  for (const auto at : repeated_) {
    if (state_.marks->set(at)) written += chunk::kChunkBytes;
  }
  counters_.done_bytes += fetched;
  counters_.unsynced_bytes += written;
  counters_.moved_at_ms = WorkQueue::Pulse::to_ms(WorkQueue::Clock::now());
  state_.queue.written(buffered_);
  state_.marks->announce();
  buffered_.clear();
  repeated_.clear();
  used_ = 0;
  return {};
}

}  // namespace educloud::nc
