#include <gtest/gtest.h>

#include "cli/core/console.hpp"
#include "cli/core/exit_code.hpp"
#include "cli/core/progress.hpp"
#include "cli/core/text.hpp"

namespace educloud::cli {
namespace {

TEST(Printable, LetsNoControlCharacterThrough) {
  EXPECT_EQ(printable("a\x1b[2Jb\a\r\n\tc\x7f"), "a?[2Jb????c?");
  EXPECT_EQ(printable("one\n\ttwo\x1b", true), "one\n\ttwo?");
  EXPECT_EQ(printable("\xc2\x9b"
                      "31m"),
            "?31m")
      << "C1 control";
  EXPECT_EQ(printable("\xe2\x80\xae"
                      "gnp.exe"),
            "?gnp.exe")
      << "right-to-left override";
  EXPECT_EQ(printable("Schüler 张"), "Schüler 张");
  EXPECT_EQ(printable("\xff\xc3"), "??") << "not UTF-8";
  EXPECT_EQ(printable("\xc0\x8a"), "??") << "overlong newline";
}

TEST(Table, AlignsByCharactersAndEndsWithoutBlanks) {
  EXPECT_EQ(render_table({{"NAME", "STATE"}, {"Büro", "ok"}, {"x", ""}}), "NAME  STATE\nBüro  ok\nx\n");
  EXPECT_EQ(render_table({{"A", "B"}, {"bad\nrow\x1b", "1"}}), "A         B\nbad?row?  1\n");
  EXPECT_EQ(render_table({}), "");
}

TEST(Duration, IsShortAndHonest) {
  EXPECT_EQ(format_duration(9), "00:09");
  EXPECT_EQ(format_duration(3600 + 120 + 3), "1:02:03");
  EXPECT_EQ(format_duration(-1), "--:--");
}

TEST(Progress, ShowsBytesRateAndTimeLeft) {
  const Step step{.label = "uploading", .bytes_done = 1ull << 30, .bytes_total = 2ull << 30};
  EXPECT_EQ(render_plain(step, 128.0 * 1024 * 1024),
            "uploading  50%  1.0 GiB / 2.0 GiB  128.0 MiB/s  00:08 left");
  EXPECT_EQ(render_plain(step, 0), "uploading  50%  1.0 GiB / 2.0 GiB") << "a stall promises no time";
  EXPECT_EQ(render_plain(Step{.label = "booting", .percent = 0}, 0), "booting  0%");
}

TEST(Progress, FitsTheTerminal) {
  const Step step{.label = "uploading a very long name of something", .bytes_done = 1, .bytes_total = 3};
  for (std::size_t width : {20u, 40u, 60u, 80u, 200u}) {
    EXPECT_LE(display_width(render_bar(step, 1e6, width)), width);
  }
  EXPECT_NE(render_bar(step, 1e6, 120).find("[=========>"), std::string::npos) << render_bar(step, 1e6, 120);
}

TEST(RateMeter, FollowsTheLastSeconds) {
  RateMeter meter;
  for (int second = 0; second <= 10; ++second)
    meter.add(static_cast<std::uint64_t>(second) * 1000, second * 1000);
  EXPECT_NEAR(meter.bytes_per_second(), 1000, 1);
  for (int second = 11; second <= 20; ++second) meter.add(10'000, second * 1000);
  EXPECT_EQ(meter.bytes_per_second(), 0) << "stalled";
  meter.add(5, 21'000);
  EXPECT_EQ(meter.bytes_per_second(), 0) << "begun again";
}

TEST(ExitCode, EveryErrorHasOne) {
  EXPECT_EQ(exit_code(ErrorCode::invalid_argument), ExitCode::usage);
  EXPECT_EQ(exit_code(ErrorCode::permission_denied), ExitCode::unauthenticated);
  EXPECT_EQ(exit_code(ErrorCode::not_found), ExitCode::not_found);
  EXPECT_EQ(exit_code(ErrorCode::conflict), ExitCode::conflict);
  EXPECT_EQ(exit_code(ErrorCode::timeout), ExitCode::unavailable);
  EXPECT_EQ(exit_code(ErrorCode::exhausted), ExitCode::exhausted);
  EXPECT_EQ(exit_code(ErrorCode::corrupt), ExitCode::task_failed);
}

}  // namespace
}  // namespace educloud::cli
