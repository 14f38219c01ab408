#include <gtest/gtest.h>

#include "common/obs/log.hpp"
#include "common/obs/metrics.hpp"
#include "support/temp_dir.hpp"

namespace educloud::obs {
namespace {

TEST(Metrics, WritesTheTextfileAtOnceAndAtTheEnd) {
  const testing::TempDir dir;
  Metrics metrics;
  ASSERT_TRUE(metrics.start(dir.path(), "nc", std::chrono::seconds(3600)));
  const auto file = dir / "config/metrics/nc.prom";
  EXPECT_NE(testing::slurp(file).find("educloud_nc_up 1"), std::string::npos);
  metrics.count("educloud_nc_ops_total", "Commands done.", 2, {{"op", "image/run"}});
  metrics.gauge("educloud_nc_vms", "VMs.", 3);
  metrics.observe("educloud_nc_op_seconds", "Duration.", 0.2);
  metrics.stop();
  const std::string text = testing::slurp(file);
  EXPECT_NE(text.find("educloud_nc_ops_total{op=\"image/run\"} 2"), std::string::npos) << text;
  EXPECT_NE(text.find("educloud_nc_up 0"), std::string::npos);
  EXPECT_NE(text.find("educloud_nc_op_seconds_count 1"), std::string::npos);
}

TEST(Log, AHostileValueStaysOnItsLine) {
  ::testing::internal::CaptureStderr();
  init_log("test", "info");
  info("guest.said", {{"text", "a\nfake line\x1b[2J \"quoted\""}, {"n", 3}});
  const std::string text = ::testing::internal::GetCapturedStderr();
  EXPECT_NE(text.find(R"(guest.said text="a\nfake line\x1b[2J \"quoted\"" n=3)"), std::string::npos) << text;
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1);
}

}  // namespace
}  // namespace educloud::obs
