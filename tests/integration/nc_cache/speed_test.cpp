#include <fstream>
#include <sstream>

#include "integration/nc_cache/node.hpp"

namespace educloud::nc {
namespace {

/// Peak resident memory of this process, in MiB.
std::uint64_t peak_mib() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::stoull(line.substr(6)) / 1024;
  }
  return 0;
}

double cpu_seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}

class Speed : public NodeCacheTest {};

/// Figures for a person (EDUCLOUD_SPEED_MIB of disk, else a small one); server and node in one process.
TEST_F(Speed, OverTheLoopback) {
  const char* wanted = std::getenv("EDUCLOUD_SPEED_MIB");
  const auto bytes = (wanted == nullptr ? 64 : std::stoull(wanted)) * kMiB;
  auto v1 = disk("v1", bytes);
  v1.fill(1, 95);
  const auto first = cc_.add(kImage, 1, v1);
  v1.change(2, 4);
  const auto second = cc_.add(kImage, 2, v1);
  for (const bool peers : {false, true}) {
    cc_.peers_enabled = peers;
    Node node(cc_, "nc1", prefix(peers ? "with" : "without"));
    for (const auto& [version, digest] : {std::pair(1, first), std::pair(2, second)}) {
      const auto sent = cc_.sent_bytes.load();
      const auto begin = std::chrono::steady_clock::now();
      const auto cpu = cpu_seconds();
      const auto filled = node.fill(version, digest);
      ASSERT_TRUE(filled) << filled.error().message;
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
      std::printf("peers %d version %d: %.2f s, %llu MiB of disk, %.0f MiB/s, cpu %.2f s, peak %llu MiB\n",
                  peers, version, took.count(),
                  static_cast<unsigned long long>((cc_.sent_bytes - sent) / kMiB),
                  static_cast<double>(cc_.sent_bytes - sent) / static_cast<double>(kMiB) / took.count(),
                  cpu_seconds() - cpu, static_cast<unsigned long long>(peak_mib()));
    }
  }
}

}  // namespace
}  // namespace educloud::nc
