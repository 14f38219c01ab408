#include "nc/app/net_lane.hpp"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include "nc/app/net_shaper.hpp"
#include "nc/domain/rate_gate.hpp"
#include "nc/hypervisor/fake_hypervisor.hpp"
#include "support/temp_dir.hpp"

namespace educloud::nc {
namespace {

using namespace std::chrono_literals;
constexpr auto kPatience = 30s;

std::string frame(std::size_t bytes, char content) {
  std::string out;
  for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>(bytes >> shift & 0xff);
  return out + std::string(bytes, content);
}

void send_all(int fd, const std::string& data) {
  ASSERT_EQ(::send(fd, data.data(), data.size(), MSG_NOSIGNAL), static_cast<ssize_t>(data.size()));
}

/// What comes out of `fd` until there are `bytes` of it, or nothing comes any more.
std::string receive(int fd, std::size_t bytes, std::chrono::milliseconds patience = kPatience) {
  std::string out;
  const auto until = std::chrono::steady_clock::now() + patience;
  while (out.size() < bytes && std::chrono::steady_clock::now() < until) {
    pollfd one{fd, POLLIN, 0};
    if (::poll(&one, 1, 100) <= 0) continue;
    char buffer[65536];
    const auto got = ::recv(fd, buffer, std::min(sizeof buffer, bytes - out.size()), 0);
    if (got <= 0) break;
    out.append(buffer, static_cast<std::size_t>(got));
  }
  return out;
}

TEST(RateGateTest, PassesAtItsRateAndCatchesUpALittle) {
  RateGate gate;
  gate.set_rate(8000);  // a kilobyte a second
  const RateGate::Time start = 100s;
  EXPECT_LE(gate.open_at(start), start);
  gate.pass(1000);
  EXPECT_EQ(gate.open_at(start), start - RateGate::kCredit + 1s);
  EXPECT_EQ(gate.open_at(start + 60s), start + 60s - RateGate::kCredit) << "what was not used is gone";
}

TEST(NetLaneTest, FramesComeThroughBothWaysInOrderAndAtTheRate) {
  auto lane = NetLane::open(800'000);  // 100 kB/s
  ASSERT_TRUE(lane) << lane.error().message;
  const auto ends = (*lane)->take_ends();
  std::string all;
  for (int i = 0; i < 50; ++i) all += frame(1000, static_cast<char>('a' + i % 26));
  const auto began = std::chrono::steady_clock::now();
  send_all(ends.from_guest.get(), all);
  send_all(ends.from_net.get(), frame(3, 'x'));
  EXPECT_EQ(receive(ends.to_guest.get(), 7), frame(3, 'x')) << "the other way does not wait";
  EXPECT_EQ(receive(ends.to_net.get(), all.size()), all);
  EXPECT_GE(std::chrono::steady_clock::now() - began, 400ms) << "50 kB at 100 kB/s";
  (*lane)->set_rate(1'000'000'000);
  send_all(ends.from_guest.get(), all);
  EXPECT_EQ(receive(ends.to_net.get(), all.size()), all);
  EXPECT_EQ((*lane)->dropped(), 0U);
  EXPECT_FALSE((*lane)->is_over());
}

TEST(NetLaneTest, AFullQueueDropsAndNeverKeepsTheGuestWaiting) {
  auto lane = NetLane::open(1000);
  const auto ends = (*lane)->take_ends();
  const std::string one = frame(60'000, 'a');
  for (int i = 0; i < 40; ++i) send_all(ends.from_guest.get(), one);  // blocks if nobody reads
  const auto until = std::chrono::steady_clock::now() + kPatience;
  while ((*lane)->dropped() < 20 && std::chrono::steady_clock::now() < until) std::this_thread::yield();
  EXPECT_GE((*lane)->dropped(), 20U);
}

TEST(NetLaneTest, WhoDoesNotSpeakAsItShouldIsCutOff) {
  auto lane = NetLane::open(1'000'000);
  const auto ends = (*lane)->take_ends();
  send_all(ends.from_guest.get(), "\xff\xff\xff\xff nonsense");
  EXPECT_EQ(receive(ends.to_net.get(), 1), "");
  const auto until = std::chrono::steady_clock::now() + kPatience;
  while (!(*lane)->is_over() && std::chrono::steady_clock::now() < until) std::this_thread::yield();
  EXPECT_TRUE((*lane)->is_over());
}

TEST(NetShaperTest, ALimitHoldsAgainAfterARestart) {
  const educloud::testing::TempDir folder;
  const Layout layout(folder.path());
  const auto insid = *InstanceId::parse("VD00000001");
  std::filesystem::create_directories(layout.instance(insid));
  FakeHypervisor hypervisor;
  ASSERT_TRUE(hypervisor.start([](const VmEvent&) {}));
  VmSpec spec;
  spec.insid = insid;
  ASSERT_TRUE(hypervisor.define_and_start(spec));
  {
    NetShaper shaper(layout, hypervisor);
    ASSERT_TRUE(shaper.limit(insid, 0));
    EXPECT_FALSE(hypervisor.diverted(insid));
    ASSERT_TRUE(shaper.limit(insid, 10));
    ASSERT_TRUE(hypervisor.diverted(insid));
    const int before = hypervisor.diverted(insid)->to_net;
    ASSERT_TRUE(shaper.limit(insid, 20));
    EXPECT_EQ(hypervisor.diverted(insid)->to_net, before) << "live";
    shaper.stop();
    EXPECT_FALSE(hypervisor.diverted(insid)) << "nobody would carry its frames";
  }
  NetShaper shaper(layout, hypervisor);
  shaper.tend();
  ASSERT_TRUE(hypervisor.diverted(insid));
  send_all(hypervisor.diverted(insid)->from_guest, frame(5, 'q'));
  EXPECT_EQ(receive(hypervisor.diverted(insid)->to_net, 9), frame(5, 'q'));
  shaper.drop(insid);
  shaper.tend();
  EXPECT_FALSE(std::filesystem::exists(layout.net_limit(insid)));
}

}  // namespace
}  // namespace educloud::nc
