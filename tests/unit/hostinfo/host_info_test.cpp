#include "common/hostinfo/host_info.hpp"

#include <gtest/gtest.h>

namespace educloud::hostinfo {
namespace {

TEST(HostInfo, CpuTimesCountIdleAndDiskWaitAsIdleAndGuestTimeOnce) {
  const auto times = parse_cpu_times(
      "cpu  10 1 5 80 4 0 0 0 7 0\ncpu0 5 1 2 40 2 0 0 0 7 0\ncpu1 5 0 3 40 2 0 0 0 0 0\nintr 1\n");
  ASSERT_TRUE(times) << times.error().message;
  EXPECT_EQ(times->cpus, 2);
  EXPECT_EQ(times->total, 100u);
  EXPECT_EQ(times->idle, 84u);
  EXPECT_FALSE(parse_cpu_times("nonsense"));
}

TEST(HostInfo, MemoryIsInMiB) {
  const auto memory = parse_memory("MemTotal:       4194304 kB\nMemFree: 1 kB\nMemAvailable:   1048576 kB\n");
  ASSERT_TRUE(memory) << memory.error().message;
  EXPECT_EQ(memory->total_mib, 4096);
  EXPECT_EQ(memory->available_mib, 1024);
  EXPECT_FALSE(parse_memory(""));
}

TEST(HostInfo, TheAdvertisedAddressComesFirst) {
  const std::vector<Interface> two{{"lo", "127.0.0.1", "00:00:00:00:00:00"},
                                   {"eth0", "10.0.0.1", "52:54:00:00:00:01"},
                                   {"eth1", "10.0.1.1", "52:54:00:00:00:02"}};
  auto net = arrange(two, "10.0.1.1");
  EXPECT_EQ(net.ip0, "10.0.1.1");
  EXPECT_EQ(net.mac0, "52:54:00:00:00:02");
  EXPECT_EQ(net.ip1, "10.0.0.1");
  EXPECT_EQ(net.ip2, "");
  net = arrange(two, "");
  EXPECT_EQ(net.ip0, "10.0.0.1");
  EXPECT_EQ(net.exip, "10.0.0.1");
  net = arrange(two, "127.0.0.1");  // a cloud on one host
  EXPECT_EQ(net.ip0, "127.0.0.1");
  EXPECT_EQ(net.mac0, "52:54:00:00:00:01");
  EXPECT_EQ(net.ip1, "10.0.0.1");
  net = arrange(two, "cc1.school.example");
  EXPECT_EQ(net.ip0, "cc1.school.example");
  EXPECT_EQ(net.ip1, "10.0.0.1");
  EXPECT_EQ(status_id("cc", net), "cc#52:54:00:00:00:01#status");
}

TEST(HostInfo, ThisHostCanBeMeasured) {
  HostSampler sampler("/tmp", "127.0.0.1");
  const auto hardware = sampler.hardware();
  ASSERT_TRUE(hardware) << hardware.error().message;
  EXPECT_GE(hardware->cpus, 1);
  EXPECT_GT(hardware->mem, hardware->mem_usage);
  EXPECT_GE(hardware->disk, hardware->disk_usage);
  EXPECT_LE(hardware->cpu_usage, 100.0);
  const auto net = sampler.network();
  ASSERT_TRUE(net) << net.error().message;
  EXPECT_EQ(net->ip0, "127.0.0.1");
  EXPECT_FALSE(HostSampler("/no/such/place", "").hardware());
}

}  // namespace
}  // namespace educloud::hostinfo
