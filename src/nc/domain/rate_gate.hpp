#pragma once

#include <chrono>
#include <cstdint>

namespace educloud::nc {

/// Lets bytes pass at a rate. Pure: the caller brings the time, of any monotonic clock.
class RateGate {
 public:
  using Time = std::chrono::nanoseconds;
  /// What was not used lately may be caught up on, as far back as this: waits are not more exact than that.
  static constexpr Time kCredit = std::chrono::milliseconds{20};

  /// In bits a second; more than 0.
  void set_rate(std::int64_t bits_per_s) { bits_per_s_ = bits_per_s; }
  /// When the next bytes may pass: not later than `now` means at once.
  Time open_at(Time now) {
    next_ = std::max(next_, now - kCredit);
    return next_;
  }
  /// They did.
  void pass(std::size_t bytes) {
    const double seconds = static_cast<double>(bytes) * 8 / static_cast<double>(bits_per_s_);
    next_ += std::chrono::duration_cast<Time>(std::chrono::duration<double>(seconds));
  }

 private:
  std::int64_t bits_per_s_ = 1'000'000;
  Time next_{};
};

}  // namespace educloud::nc
