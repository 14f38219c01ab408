#include "nc/cache/frame_ring.hpp"

namespace educloud::nc {

void FrameRing::put(const chunk::FrameHeader& header, std::span<const char> stored) {
  const auto size = header.frame_bytes() + kOverhead;
  if (size > max_bytes_) return;
  auto frame = std::make_shared<std::string>();
  frame->reserve(header.frame_bytes());
  frame->resize(chunk::kFrameHeaderBytes);
  chunk::encode_header(header,
                       std::span<char, chunk::kFrameHeaderBytes>(frame->data(), chunk::kFrameHeaderBytes));
  frame->append(stored.data(), stored.size());

  const std::lock_guard lock(mutex_);
  if (!frames_.try_emplace(header.id, std::move(frame)).second) return;
  order_.push_back(header.id);
  was_used_ = true;
  bytes_ += size;
  while (bytes_ > max_bytes_) {
    const auto oldest = frames_.find(order_.front());
    bytes_ -= oldest->second->size() + kOverhead;
    frames_.erase(oldest);
    order_.pop_front();
  }
}

std::shared_ptr<const std::string> FrameRing::find(const chunk::ChunkId& id) const {
  const std::lock_guard lock(mutex_);
  const auto found = frames_.find(id);
  return found == frames_.end() ? nullptr : found->second;
}

std::uint64_t FrameRing::bytes() const {
  const std::lock_guard lock(mutex_);
  return bytes_;
}

void FrameRing::trim_idle() {
  const std::lock_guard lock(mutex_);
  if (std::exchange(was_used_, false)) return;
  frames_.clear();
  order_.clear();
  bytes_ = 0;
}

}  // namespace educloud::nc
