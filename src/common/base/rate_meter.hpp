#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace educloud {

/// Bytes per second over the last few seconds, so that a stall shows.
class RateMeter {
 public:
  /// `now_ms`: a clock that never jumps. Fewer bytes than before: another file, or begun again.
  void add(std::uint64_t bytes_done, std::int64_t now_ms);
  /// 0: nothing moved, or nothing is known yet.
  double bytes_per_second() const;
  void reset() { samples_.clear(); }

 private:
  static constexpr std::int64_t kWindowMs = 5000;
  std::vector<std::pair<std::int64_t, std::uint64_t>> samples_;  ///< at most one per 100 ms of the window
};

}  // namespace educloud
