#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "common/base/result.hpp"

namespace educloud::cc {

/// How fast the cluster may read from walrus at a time of day, this host's local time. A window may pass
/// midnight ("22:00" to "06:00"); from == to means the whole day.
struct UplinkWindow {
  int from_minute = 0;  ///< of the day, 0..1439; inclusive
  int to_minute = 0;    ///< exclusive
  std::int64_t mbit_per_s = 0;

  bool covers(int minute) const;
};
inline constexpr int kMinutesPerDay = 24 * 60;

/// "HH:MM", 00:00 to 23:59, as minute of the day. Errors: invalid_argument.
Result<int> parse_time_of_day(std::string_view text);
/// Errors: invalid_argument if two windows have a minute in common (both named).
Result<> check_windows(std::span<const UplinkWindow> windows);

/// A token bucket whose rate follows the clock. What was received is noted after the fact, so the bucket may
/// be in debt by what was under way; over any time T it lets pass at most rate * T + kBurst * rate + that.
/// Pure; not thread-safe.
class UplinkLimit {
 public:
  /// Worth of the bucket when it is full: what may come at once after a pause.
  static constexpr std::chrono::milliseconds kBurst{250};

  explicit UplinkLimit(std::vector<UplinkWindow> windows) : windows_(std::move(windows)) {}

  bool ever_limits() const { return !windows_.empty(); }
  /// Bytes per second in that minute; nullopt: no limit.
  std::optional<double> rate_at(int minute_of_day) const;
  /// Notes `bytes` received at `boot_ms`.
  void spend(std::uint64_t bytes, std::int64_t boot_ms, int minute_of_day);
  /// For how long nothing more should be received; 0: go on.
  std::chrono::milliseconds delay(std::int64_t boot_ms, int minute_of_day);

 private:
  /// The rate now; without one, and whenever it changes, the bucket is neither full nor in debt.
  std::optional<double> refill(std::int64_t boot_ms, int minute_of_day);

  const std::vector<UplinkWindow> windows_;
  double level_ = 0;  ///< bytes; negative: debt
  std::optional<double> rate_;
  std::int64_t filled_ms_ = 0;
};

}  // namespace educloud::cc
