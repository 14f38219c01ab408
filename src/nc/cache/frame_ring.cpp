#include "nc/cache/frame_ring.hpp"

#include <cstring>

namespace educloud::nc {

void FrameRing::drop_oldest() {
  const auto oldest = slots_.find(order_.front());
  bytes_ -= oldest->second.length;
  slots_.erase(oldest);
  order_.pop_front();
}

void FrameRing::put(const chunk::FrameHeader& header, std::span<const char> stored) {
  const auto size = header.frame_bytes();
  if (size > max_bytes_) return;
  const std::lock_guard lock(mutex_);
  was_used_ = true;
  if (slots_.contains(header.id)) return;
  if (!block_) block_ = std::unique_ptr<char[]>(new char[max_bytes_]);
  if (write_at_ + size > max_bytes_) {
    // What lies behind is the oldest of all: it goes, and writing begins in front again.
    while (!order_.empty() && slots_.at(order_.front()).offset >= write_at_) drop_oldest();
    write_at_ = 0;
  }
  while (!order_.empty()) {
    const auto& oldest = slots_.at(order_.front());
    if (oldest.offset < write_at_ || oldest.offset >= write_at_ + size) break;
    drop_oldest();
  }
  auto* to = block_.get() + write_at_;
  chunk::encode_header(header, std::span<char, chunk::kFrameHeaderBytes>(to, chunk::kFrameHeaderBytes));
  std::memcpy(to + chunk::kFrameHeaderBytes, stored.data(), stored.size());
  slots_[header.id] = {write_at_, size};
  order_.push_back(header.id);
  write_at_ += size;
  bytes_ += size;
}

std::shared_ptr<const std::string> FrameRing::find(const chunk::ChunkId& id) const {
  const std::lock_guard lock(mutex_);
  const auto found = slots_.find(id);
  if (found == slots_.end()) return nullptr;
  return std::make_shared<const std::string>(block_.get() + found->second.offset, found->second.length);
}

std::uint64_t FrameRing::bytes() const {
  const std::lock_guard lock(mutex_);
  return bytes_;
}

void FrameRing::trim_idle() {
  const std::lock_guard lock(mutex_);
  if (std::exchange(was_used_, false)) return;
  slots_.clear();
  order_.clear();
  block_.reset();
  write_at_ = bytes_ = 0;
}

}  // namespace educloud::nc
