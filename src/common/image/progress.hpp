#pragma once

#include <chrono>
#include <cstdint>
#include <functional>

namespace educloud::image {

/// How far a long piece of work on a file is, in bytes of the file's length (holes count as done).
/// Called on the worker's thread at most five times a second, and once at the end.
using OnBytes = std::function<void(std::uint64_t done, std::uint64_t total)>;

/// Thins out calls of an OnBytes.
class ProgressMeter {
 public:
  ProgressMeter(const OnBytes& on_bytes, std::uint64_t total) : on_bytes_(on_bytes), total_(total) {}

  void at(std::uint64_t done) {
    if (!on_bytes_) return;
    const auto now = std::chrono::steady_clock::now();
    if (done < total_ && now - last_ < std::chrono::milliseconds(200)) return;
    last_ = now;
    on_bytes_(done, total_);
  }

 private:
  const OnBytes& on_bytes_;
  const std::uint64_t total_;
  std::chrono::steady_clock::time_point last_{};
};

}  // namespace educloud::image
