#include "common/bus/memory_bus.hpp"

#include <gtest/gtest.h>

#include "common/bus/back_off.hpp"

namespace educloud::bus {
namespace {

struct MemoryBusTest : ::testing::Test {
  MemoryBusTest() {
    broker.bind("cmd", "one", "queue_one");
    broker.bind("status", "taskstatus.#", "status_queue");
  }
  Outcome publish(Bus& bus, const std::string& exchange, const std::string& key,
                  const std::string& body = "{}") {
    std::vector<Outcome> outcomes;
    EXPECT_TRUE(
        bus.publish({exchange, key, body, "id"}, [&](Outcome outcome) { outcomes.push_back(outcome); }));
    EXPECT_EQ(outcomes.size(), 1u);
    return outcomes.at(0);
  }
  MemoryBroker broker;
};

TEST_F(MemoryBusTest, RoutesByKeyAndPrefixAndReturnsTheRest) {
  auto bus = broker.connect("alice");
  EXPECT_EQ(publish(*bus, "cmd", "one"), Outcome::confirmed);
  EXPECT_EQ(publish(*bus, "cmd", "two"), Outcome::returned);
  EXPECT_EQ(publish(*bus, "status", "taskstatus.nc-nc1"), Outcome::confirmed);
  EXPECT_EQ(publish(*bus, "status", "nodestatus.nc-nc1"), Outcome::returned);
  EXPECT_EQ(broker.depth("queue_one"), 1u);
  EXPECT_EQ(broker.depth("status_queue"), 1u);
}

TEST_F(MemoryBusTest, DeliversTheOldestFirstWithItsSender) {
  auto sender = broker.connect("alice"), receiver = broker.connect("bob");
  std::vector<std::string> seen;
  const auto sink = [&](Delivery d) {
    seen.push_back(d.user_id + ":" + d.body);
    d.settle(Verdict::ack);
  };
  receiver->subscribe({"queue_one", 1, sink});
  receiver->subscribe({"status_queue", 1, sink});
  publish(*sender, "status", "taskstatus.x", "1");
  publish(*sender, "cmd", "one", "2");
  EXPECT_FALSE(broker.deliver_one());
  receiver->start({});
  EXPECT_EQ(broker.deliver_all(), 2);
  EXPECT_EQ(seen, (std::vector<std::string>{"alice:1", "alice:2"}));
  EXPECT_EQ(broker.unsettled(), 0u);
}

TEST_F(MemoryBusTest, RequeuesRejectsAndGivesBackWhatWasHeld) {
  auto bus = broker.connect("alice");
  std::vector<Delivery> held;
  bus->subscribe({"queue_one", 8, [&](Delivery d) { held.push_back(std::move(d)); }});
  bus->start({});
  publish(*bus, "cmd", "one", "a");
  ASSERT_TRUE(broker.deliver_one());
  held[0].settle(Verdict::requeue);
  ASSERT_TRUE(broker.deliver_one());
  EXPECT_TRUE(held[1].redelivered);
  held[1].settle(Verdict::reject);
  held[1].settle(Verdict::requeue);
  EXPECT_EQ(broker.dead_letters(), 1u);
  EXPECT_FALSE(broker.deliver_one());
  publish(*bus, "cmd", "one", "b");
  ASSERT_TRUE(broker.deliver_one());
  bus->stop();
  EXPECT_EQ(broker.depth("queue_one"), 1u);
}

TEST_F(MemoryBusTest, FailsWhileTheBrokerIsDownAndTellsWhenItIsBack) {
  int ready = 0;
  auto bus = broker.connect("alice");
  bus->start([&] { ++ready; });
  EXPECT_EQ(ready, 1);
  broker.set_up(false);
  EXPECT_FALSE(bus->is_ready());
  EXPECT_EQ(publish(*bus, "cmd", "one"), Outcome::failed);
  broker.set_up(true);
  EXPECT_EQ(ready, 2);
  EXPECT_EQ(publish(*bus, "cmd", "one"), Outcome::confirmed);
}

TEST(BackOff, DoublesWithJitterUpToItsMost) {
  using std::chrono::milliseconds;
  BackOff back_off(milliseconds{200}, milliseconds{10'000});
  milliseconds expected{200};
  for (int i = 0; i < 12; ++i) {
    const auto wait = back_off.next();
    EXPECT_GE(wait, expected / 2) << i;
    EXPECT_LE(wait, expected) << i;
    expected = std::min(expected * 2, milliseconds{10'000});
  }
  back_off.reset();
  EXPECT_LE(back_off.next(), milliseconds{200});
}

}  // namespace
}  // namespace educloud::bus
