#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <stop_token>

#include "nc/cache/fill_plan.hpp"

namespace educloud::nc {

/// Which chunks a fill has written (proven, not yet synced), and the waiting for them. Thread-safe; asking
/// costs no lock.
class ChunkMarks {
 public:
  using Time = std::chrono::steady_clock::time_point;

  explicit ChunkMarks(const ChunkBits& already)
      : count_(already.size()), words_(std::make_unique<std::atomic<std::uint64_t>[]>(already.size())) {
    for (std::size_t i = 0; i < count_; ++i) words_[i] = already[i];
  }

  bool test(std::uint64_t chunk) const {
    return (words_[chunk / 64].load(std::memory_order_acquire) >> (chunk % 64) & 1) != 0;
  }
  /// False if it was set before.
  bool set(std::uint64_t chunk) {
    const auto bit = std::uint64_t{1} << (chunk % 64);
    return (words_[chunk / 64].fetch_or(bit, std::memory_order_acq_rel) & bit) == 0;
  }
  /// After some set(): wakes who waits.
  void announce() {
    if (waiting_.load() == 0) return;
    const std::lock_guard lock(mutex_);
    changed_.notify_all();
  }
  /// No mark will come any more.
  void close() {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    changed_.notify_all();
  }
  bool is_closed() const {
    const std::lock_guard lock(mutex_);
    return closed_;
  }
  /// True once the chunk is there; false at `deadline`, after close(), or when `stop` is requested.
  bool wait(std::uint64_t chunk, Time deadline, std::stop_token stop) {
    if (test(chunk)) return true;
    std::unique_lock lock(mutex_);
    // Before the test: a set() that is not seen by it sees this.
    waiting_.fetch_add(1);
    changed_.wait_until(lock, stop, deadline, [&] { return closed_ || test(chunk); });
    waiting_.fetch_sub(1);
    return test(chunk);
  }
  ChunkBits snapshot() const {
    ChunkBits bits(count_);
    for (std::size_t i = 0; i < count_; ++i) bits[i] = words_[i].load(std::memory_order_acquire);
    return bits;
  }

 private:
  std::size_t count_;
  std::unique_ptr<std::atomic<std::uint64_t>[]> words_;
  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  std::atomic<int> waiting_{0};
  bool closed_ = false;
};

}  // namespace educloud::nc
