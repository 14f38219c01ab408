#include "cc/domain/uplink_limit.hpp"

#include <algorithm>
#include <cmath>
#include <string>

namespace educloud::cc {
namespace {

std::string clock_text(int minute) {
  const auto two = [](int number) { return (number < 10 ? "0" : "") + std::to_string(number); };
  return two(minute / 60) + ":" + two(minute % 60);
}

std::string text_of(const UplinkWindow& window) {
  return clock_text(window.from_minute) + "-" + clock_text(window.to_minute);
}

}  // namespace

bool UplinkWindow::covers(int minute) const {
  if (from_minute == to_minute) return true;
  if (from_minute < to_minute) return minute >= from_minute && minute < to_minute;
  return minute >= from_minute || minute < to_minute;
}

Result<int> parse_time_of_day(std::string_view text) {
  const auto digit = [&](std::size_t at) { return text[at] >= '0' && text[at] <= '9'; };
  if (text.size() == 5 && text[2] == ':' && digit(0) && digit(1) && digit(3) && digit(4)) {
    const int hour = (text[0] - '0') * 10 + (text[1] - '0');
    const int minute = (text[3] - '0') * 10 + (text[4] - '0');
    if (hour < 24 && minute < 60) return hour * 60 + minute;
  }
  return fail(ErrorCode::invalid_argument, "a time of day is written HH:MM, from 00:00 to 23:59, not '" +
                                               std::string(text.substr(0, 20)) + "'");
}

Result<> check_windows(std::span<const UplinkWindow> windows) {
  for (std::size_t i = 0; i < windows.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      // Two windows meet if and only if one of them covers the other's first minute.
      if (!windows[i].covers(windows[j].from_minute) && !windows[j].covers(windows[i].from_minute)) continue;
      return fail(ErrorCode::invalid_argument,
                  "the windows " + text_of(windows[j]) + " and " + text_of(windows[i]) + " overlap");
    }
  }
  return {};
}

std::optional<double> UplinkLimit::rate_at(int minute_of_day) const {
  for (const auto& window : windows_) {
    if (window.covers(minute_of_day)) return static_cast<double>(window.mbit_per_s) * 1e6 / 8;
  }
  return std::nullopt;
}

std::optional<double> UplinkLimit::refill(std::int64_t boot_ms, int minute_of_day) {
  const auto rate = rate_at(minute_of_day);
  if (rate != rate_) {
    rate_ = rate;
    level_ = 0;
  } else if (rate) {
    const auto passed = static_cast<double>(std::max<std::int64_t>(0, boot_ms - filled_ms_)) / 1000;
    const double full = *rate * static_cast<double>(kBurst.count()) / 1000;
    level_ = std::min(full, level_ + passed * *rate);
  }
  filled_ms_ = boot_ms;
  return rate;
}

void UplinkLimit::spend(std::uint64_t bytes, std::int64_t boot_ms, int minute_of_day) {
  if (refill(boot_ms, minute_of_day)) level_ -= static_cast<double>(bytes);
}

std::chrono::milliseconds UplinkLimit::delay(std::int64_t boot_ms, int minute_of_day) {
  const auto rate = refill(boot_ms, minute_of_day);
  if (!rate || level_ >= 0) return std::chrono::milliseconds{0};
  return std::chrono::milliseconds{static_cast<std::int64_t>(std::ceil(-level_ / *rate * 1000))};
}

}  // namespace educloud::cc
