#include "cc/domain/uplink_limit.hpp"

#include <gtest/gtest.h>

#include "common/base/clock.hpp"

namespace educloud::cc {
namespace {

constexpr int kNine = 9 * 60, kTen = 10 * 60, kNoon = 12 * 60, kTwenty = 20 * 60;

UplinkLimit by_day(std::int64_t mbit) {
  return UplinkLimit({{8 * 60, 18 * 60, mbit}});
}

/// Receives frames of 64 KiB as fast as the limit lets it for `time`; returns the bytes.
std::uint64_t receive_for(UplinkLimit& limit, ManualClock& clock, std::chrono::milliseconds time,
                          int minute) {
  const std::int64_t end = clock.boot_ms() + time.count();
  std::uint64_t bytes = 0;
  while (clock.boot_ms() < end) {
    const auto delay = limit.delay(clock.boot_ms(), minute);
    if (delay.count() > 0) {
      clock.advance(std::min(delay, std::chrono::milliseconds{end - clock.boot_ms()}));
      continue;
    }
    limit.spend(64 * 1024, clock.boot_ms(), minute);
    bytes += 64 * 1024;
  }
  return bytes;
}

TEST(UplinkLimit, TimesOfDayAreStrict) {
  EXPECT_EQ(parse_time_of_day("00:00").value(), 0);
  EXPECT_EQ(parse_time_of_day("08:05").value(), 485);
  EXPECT_EQ(parse_time_of_day("23:59").value(), 1439);
  for (const char* wrong :
       {"", "8:00", "08.00", "24:00", "12:60", "08:00 ", " 8:00", "-1:00", "08:0x", "0800"}) {
    EXPECT_FALSE(parse_time_of_day(wrong)) << wrong;
  }
}

TEST(UplinkLimit, WindowsMayPassMidnightButNotOverlap) {
  const UplinkWindow night{22 * 60, 6 * 60, 1}, day{6 * 60, 22 * 60, 1}, always{300, 300, 1};
  EXPECT_TRUE(night.covers(0));
  EXPECT_TRUE(night.covers(22 * 60));
  EXPECT_FALSE(night.covers(6 * 60));
  EXPECT_TRUE(always.covers(0));
  EXPECT_TRUE(check_windows(std::vector{night, day}));
  const std::vector<std::vector<UplinkWindow>> overlapping{
      {{0, 60, 1}, {59, 120, 1}}, {night, {5 * 60, 7 * 60, 1}}, {night, {23 * 60, 23 * 60 + 1, 1}},
      {always, {1, 2, 1}},        {{10, 20, 1}, {10, 20, 1}},   {{100, 200, 1}, {150, 160, 1}}};
  for (const auto& windows : overlapping) EXPECT_FALSE(check_windows(windows));
  EXPECT_NE(check_windows(overlapping[0]).error().message.find("00:00-01:00"), std::string::npos);
}

TEST(UplinkLimit, TheRateHoldsOverAnyTime) {
  for (const std::int64_t mbit : {1, 10, 200, 1000}) {
    auto limit = by_day(mbit);
    ManualClock clock;
    const double rate = static_cast<double>(mbit) * 1e6 / 8;
    const double slack = rate * 0.25 + 64 * 1024;
    for (const int seconds : {1, 7, 60}) {
      const auto bytes = static_cast<double>(receive_for(limit, clock, std::chrono::seconds{seconds}, kNine));
      EXPECT_LE(bytes, rate * seconds + slack) << mbit << " Mbit/s for " << seconds << " s";
      EXPECT_GE(bytes, rate * seconds - slack) << mbit << " Mbit/s for " << seconds << " s";
    }
  }
}

TEST(UplinkLimit, APauseSavesUpNoMoreThanABurst) {
  auto limit = by_day(80);  // 10 MB/s
  ManualClock clock;
  receive_for(limit, clock, std::chrono::seconds{1}, kNine);
  clock.advance(std::chrono::hours{1});
  EXPECT_LE(receive_for(limit, clock, std::chrono::seconds{1}, kTen), 12'600'000u);
}

TEST(UplinkLimit, OutsideOfItsWindowsNothingIsLimited) {
  auto limit = by_day(1);
  ManualClock clock;
  limit.spend(1 << 30, clock.boot_ms(), kTwenty);
  EXPECT_EQ(limit.delay(clock.boot_ms(), kTwenty).count(), 0);
  // What came before the window began is no debt in it, and the debt in it ends with it.
  EXPECT_EQ(limit.delay(clock.boot_ms(), kNine).count(), 0);
  limit.spend(1 << 30, clock.boot_ms(), kNoon);
  EXPECT_GT(limit.delay(clock.boot_ms(), kNoon).count(), 1000);
  EXPECT_EQ(limit.delay(clock.boot_ms(), kTwenty).count(), 0);
  EXPECT_FALSE(UplinkLimit({}).ever_limits());
}

}  // namespace
}  // namespace educloud::cc
