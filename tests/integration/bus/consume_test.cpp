#include "common/base/limits.hpp"
#include "common/bus/amqp_connection_impl.hpp"
#include "integration/bus/fixture.hpp"

namespace educloud::test {
namespace {

using bus::Delivery;
using bus::Verdict;

class ConsumeTest : public BusTest {
 protected:
  /// Publishes and waits for the confirm, by a bus of its own.
  void send(const std::string& key, const std::vector<std::string>& msgids,
            const std::string& user = "alice") {
    auto sender = bus::make_rabbit_bus(broker().options(user));
    Outcomes outcomes;
    sender->start({});
    for (const auto& id : msgids) ASSERT_TRUE(sender->publish(message(key, id), outcomes.of(id)));
    ASSERT_TRUE(outcomes.wait(msgids.size()));
    sender->stop();
  }
  std::unique_ptr<bus::Bus> consumer(const std::string& queue, Deliveries& deliveries,
                                     std::uint16_t prefetch = 64) {
    auto made = bus::make_rabbit_bus(broker().options("alice"));
    made->subscribe({queue, prefetch, deliveries.sink()});
    made->start({});
    return made;
  }
  static bool is_empty(const std::string& queue) {
    const auto counts = broker().ctl({"list_queues", "-q", "--no-table-headers", "name", "messages"});
    return counts.find(queue + "\t0") != std::string::npos;
  }
};

TEST_F(ConsumeTest, AnAckedMessageIsGoneAndTellsItsSender) {
  send("work", {"a", "b"}, "bob");
  Deliveries got;
  auto bus = consumer("work", got);
  ASSERT_TRUE(got.wait(2));
  const auto first = got.all().front();
  EXPECT_EQ(first.body, R"({"n":"a"})");
  EXPECT_EQ(first.user_id, "bob");
  EXPECT_EQ(first.queue, "work");
  EXPECT_EQ(first.exchange, "cmd");
  EXPECT_EQ(first.routing_key, "work");
  EXPECT_FALSE(first.redelivered);
  bus->stop();
  EXPECT_TRUE(wait_until([] { return is_empty("work"); }));
}

TEST_F(ConsumeTest, ARequeuedMessageComesAgain) {
  send("work", {"a"});
  Deliveries got([](const Delivery& d) { return d.redelivered ? Verdict::ack : Verdict::requeue; });
  auto bus = consumer("work", got);
  ASSERT_TRUE(got.wait(2));
  EXPECT_TRUE(got.all().back().redelivered);
}

TEST_F(ConsumeTest, ARejectedMessageIsDeadLettered) {
  send("work", {"a"});
  Deliveries got([](const Delivery&) { return Verdict::reject; }), dead;
  auto bus = consumer("work", got);
  auto audit = consumer("dead", dead);
  ASSERT_TRUE(dead.wait(1));
  EXPECT_EQ(dead.all().front().body, R"({"n":"a"})");
}

TEST_F(ConsumeTest, AHandlerThatThrowsLosesOnlyItsOwnMessage) {
  send("work", {"a", "b"});
  Deliveries got, dead;
  auto bus = bus::make_rabbit_bus(broker().options("alice"));
  auto sink = got.sink();
  bus->subscribe({"work", 64, [&](Delivery d) {
                    if (d.body.find("\"a\"") != std::string::npos) throw std::runtime_error("handler");
                    sink(std::move(d));
                  }});
  bus->start({});
  auto audit = consumer("dead", dead);
  EXPECT_TRUE(got.wait(1));
  EXPECT_TRUE(dead.wait(1));
}

TEST_F(ConsumeTest, ADeliveryThatIsForgottenComesAgain) {
  send("work", {"a"});
  std::atomic<int> seen{0};
  auto bus = bus::make_rabbit_bus(broker().options("alice"));
  bus->subscribe({"work", 1, [&](Delivery d) {
                    if (++seen == 2) d.settle(Verdict::ack);
                  }});
  bus->start({});
  EXPECT_TRUE(wait_until([&] { return seen == 2; }));
}

TEST_F(ConsumeTest, WhatADeadConsumerHeldIsDeliveredAgain) {
  send("work", {"a", "b", "c"});
  Deliveries held([](const Delivery&) { return std::nullopt; });
  auto dying = consumer("work", held);
  ASSERT_TRUE(held.wait(3));
  dying->stop();
  held.all().front().settle(Verdict::ack);  // too late: its connection is gone
  Deliveries got;
  auto bus = consumer("work", got);
  ASSERT_TRUE(got.wait(3));
  EXPECT_TRUE(got.all().front().redelivered);
}

TEST_F(ConsumeTest, PrefetchBoundsWhatIsHandedOver) {
  send("work", {"a", "b", "c", "d"});
  Deliveries held([](const Delivery&) { return std::nullopt; });
  auto bus = consumer("work", held, 2);
  ASSERT_TRUE(held.wait(2));
  EXPECT_FALSE(held.wait(3, std::chrono::seconds{1}));
  auto thread = std::thread([d = held.all().front()] { d.settle(Verdict::ack); });  // from any thread
  EXPECT_TRUE(held.wait(3));
  thread.join();
}

TEST_F(ConsumeTest, AnOversizedMessageIsDeadLetteredUnread) {
  auto raw = bus::AmqpConnection::open(broker().options("alice"), "raw");
  ASSERT_TRUE(raw) << raw.error().message;
  ASSERT_TRUE((*raw)->open_channel(1));
  const std::string large(3u << 20, 'x');
  ASSERT_EQ(amqp_basic_publish((*raw)->state(), 1, amqp_cstring_bytes("cmd"), amqp_cstring_bytes("work"), 0,
                               0, nullptr, bus::bytes_of(large)),
            AMQP_STATUS_OK);
  Deliveries got;
  auto bus = consumer("work", got);
  send("work", {"small"});
  ASSERT_TRUE(got.wait(1));
  EXPECT_EQ(got.all().front().body, R"({"n":"small"})");
  EXPECT_TRUE(wait_until([] { return is_empty("work") && !is_empty("dead"); }));
  EXPECT_EQ(got.count(), 1u);
}

TEST_F(ConsumeTest, ADeletedQueueIsConsumedAgainOnceItIsBack) {
  Deliveries got;
  auto bus = consumer("gone", got);
  send("gone", {"a"});
  ASSERT_TRUE(got.wait(1));
  broker().ctl({"delete_queue", "gone"});
  EXPECT_TRUE(wait_until([&] { return !bus->is_ready(); }));
  broker().ctl({"import_definitions", broker().file("definitions.json")});
  EXPECT_TRUE(wait_until([&] { return bus->is_ready(); }));
  send("gone", {"b"});
  ASSERT_TRUE(got.wait(2));
  EXPECT_EQ(got.all().back().body, R"({"n":"b"})");
}

}  // namespace
}  // namespace educloud::test
