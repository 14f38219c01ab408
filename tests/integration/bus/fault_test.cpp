#include <set>

#include "integration/bus/fixture.hpp"
#include "support/fault.hpp"

namespace educloud::test {
namespace {

using bus::Delivery;
using bus::Outcome;
using namespace std::chrono_literals;

class FaultTest : public BusTest {};

TEST_F(FaultTest, NothingConfirmedIsLostWhenTheBrokerIsKilled) {
  constexpr int kMessages = 2000;
  Outcomes outcomes;
  auto bus = bus::make_rabbit_bus(broker().options("alice"));
  std::atomic<int> ready{0};
  bus->start([&] { ++ready; });
  std::atomic<bool> kill_done{false};
  std::thread killer([&] {
    outcomes.wait(kMessages / 4);
    broker().kill();
    educloud::test::injected("broker-killed");
    kill_done = true;
    broker().start();
  });
  for (int i = 0; i < kMessages; ++i) {
    // Paced by the confirms until the kill, so that it falls among them and not behind the last.
    wait_until([&] { return kill_done || outcomes.count() + 200 > static_cast<std::size_t>(i); });
    const auto id = std::to_string(i);
    ASSERT_TRUE(bus->publish(message("work", id), outcomes.of(id)));
  }
  killer.join();
  ASSERT_TRUE(outcomes.wait(kMessages, 120s));
  bus->stop();

  std::set<std::string> confirmed;
  for (const auto& [id, all] : outcomes.all()) {
    ASSERT_EQ(all.size(), 1u) << id;
    if (all.front() == Outcome::confirmed) confirmed.insert(id);
  }
  EXPECT_GE(ready, 2);
  EXPECT_GE(confirmed.size(), kMessages / 4u);
  RecordProperty("confirmed", static_cast<int>(confirmed.size()));

  std::mutex mutex;
  auto reader = bus::make_rabbit_bus(broker().options("alice"));
  reader->subscribe({"work", 256, [&](Delivery d) {
                       const std::lock_guard lock(mutex);
                       confirmed.erase(nlohmann::json::parse(d.body)["n"].get<std::string>());
                       d.settle(bus::Verdict::ack);
                     }});
  reader->start({});
  const auto all_found = [&] {
    const std::lock_guard lock(mutex);
    return confirmed.empty();
  };
  EXPECT_TRUE(wait_until(all_found, 60s)) << confirmed.size() << " confirmed messages are lost";
  reader->stop();
}

TEST_F(FaultTest, ASilentPartitionIsNoticedAndHeals) {
  Deliveries got;
  Outcomes outcomes;
  auto bus = bus::make_rabbit_bus(broker().options("alice"));
  bus->subscribe({"work", 64, got.sink()});
  bus->start({});
  ASSERT_TRUE(wait_until([&] { return bus->is_ready(); }));
  broker().signal(SIGSTOP);
  educloud::test::injected("partition");
  ASSERT_TRUE(bus->publish(message("work", "into-silence"), outcomes.of("into-silence")));
  const auto since = std::chrono::steady_clock::now();
  const bool noticed = wait_until([&] { return outcomes.count() == 1; }, 20s);
  const auto took = std::chrono::steady_clock::now() - since;
  broker().signal(SIGCONT);
  ASSERT_TRUE(noticed);
  EXPECT_LT(took, 15s);
  EXPECT_EQ(outcomes.get("into-silence"), std::vector{Outcome::failed});
  EXPECT_TRUE(wait_until([&] { return bus->is_ready(); }, 60s));
  ASSERT_TRUE(bus->publish(message("work", "healed"), outcomes.of("healed")));
  ASSERT_TRUE(outcomes.wait(2));
  EXPECT_EQ(outcomes.get("healed"), std::vector{Outcome::confirmed});
  EXPECT_TRUE(wait_until([&] { return got.count() >= 1; }));
}

TEST_F(FaultTest, ABlockedBrokerStopsPublishingUntilItHasMemoryAgain) {
  auto options = broker().options("alice");
  options.confirm_timeout = 120s;
  Outcomes outcomes;
  auto bus = bus::make_rabbit_bus(options);
  std::atomic<int> ready{0};
  bus->start([&] { ++ready; });
  ASSERT_TRUE(wait_until([&] { return bus->is_ready(); }));
  broker().ctl({"set_vm_memory_high_watermark", "0.00001"});
  educloud::test::injected("broker-alarm");
  // The broker tells a connection only once it publishes; this one is held back until the end.
  ASSERT_TRUE(bus->publish(message("work", "1"), outcomes.of("1")));
  EXPECT_TRUE(wait_until([&] { return !bus->is_ready(); }));
  ASSERT_TRUE(bus->publish(message("work", "2"), outcomes.of("2")));
  EXPECT_FALSE(outcomes.wait(2, 2s));
  broker().ctl({"set_vm_memory_high_watermark", "0.6"});
  EXPECT_TRUE(wait_until([&] { return bus->is_ready(); }));
  ASSERT_TRUE(outcomes.wait(2, 90s));
  EXPECT_EQ(outcomes.get("1"), std::vector{Outcome::confirmed});
  EXPECT_EQ(outcomes.get("2"), std::vector{Outcome::confirmed});
  EXPECT_EQ(ready, 2);
}

}  // namespace
}  // namespace educloud::test
