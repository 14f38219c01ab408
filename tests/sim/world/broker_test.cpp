#include "sim/bus/broker.hpp"

#include <gmock/gmock.h>

namespace educloud::sim {
namespace {

using ::testing::ElementsAre;

class Somebody : public Process {
 public:
  const Life& life() const override { return life_; }
  void crash_point() override {}
  void run(const std::function<void()>& what) override { what(); }

 private:
  Life life_ = new_life();
};

class SimulatedBroker : public ::testing::Test {
 protected:
  SimulatedBroker() {
    broker_.bind("work", "a", "queue");
    sender_ = broker_.connect("sender", process_);
    receiver_ = broker_.connect("receiver", process_);
    receiver_->subscribe({"queue", 4, [this](bus::Delivery delivery) {
                            got_.push_back(delivery.body);
                            redelivered_ = delivery.redelivered;
                            if (settles_) delivery.settle(bus::Verdict::ack);
                          }});
    sender_->start({});
    receiver_->start({});
    pass(5'000);
  }
  void pass(std::int64_t ms) {
    const auto end = timeline_.now_ms() + ms;
    timeline_.after(ms, [] {});
    while (timeline_.now_ms() < end && timeline_.step()) continue;
  }
  void send(const std::string& body, std::int64_t expires_ms = 0) {
    const auto queued = sender_->publish({"work", "a", body, "id", std::chrono::milliseconds{expires_ms}},
                                         [this](bus::Outcome what) { outcomes_.push_back(what); });
    ASSERT_TRUE(queued);
  }

  Timeline timeline_;
  Broker broker_{timeline_, 1};
  Somebody process_;
  std::unique_ptr<bus::Bus> sender_, receiver_;
  std::vector<std::string> got_;
  std::vector<bus::Outcome> outcomes_;
  bool settles_ = true, redelivered_ = false;
};

TEST_F(SimulatedBroker, DeliversInOrderAndConfirms) {
  for (const auto* body : {"1", "2", "3"}) send(body);
  pass(100);
  EXPECT_THAT(got_, ElementsAre("1", "2", "3"));
  EXPECT_THAT(outcomes_,
              ElementsAre(bus::Outcome::confirmed, bus::Outcome::confirmed, bus::Outcome::confirmed));
  EXPECT_EQ(broker_.waiting(), 0U);
}

TEST_F(SimulatedBroker, ReturnsWhatNoQueueTakes) {
  broker_.unbind("queue", 1'000);
  send("1");
  pass(100);
  EXPECT_THAT(outcomes_, ElementsAre(bus::Outcome::returned));
}

TEST_F(SimulatedBroker, DeliversAgainWhatWasNotSettled) {
  settles_ = false;
  send("1");
  pass(100);
  settles_ = true;
  broker_.hang_up("receiver");
  pass(5'000);
  EXPECT_THAT(got_, ElementsAre("1", "1"));
  EXPECT_TRUE(redelivered_);
  EXPECT_EQ(broker_.waiting(), 0U);
}

TEST_F(SimulatedBroker, NoticesASilentCutAfterTenSeconds) {
  broker_.cut("sender", 60'000);
  send("1");
  pass(9'000);
  EXPECT_TRUE(outcomes_.empty());
  pass(2'000);
  EXPECT_THAT(outcomes_, ElementsAre(bus::Outcome::failed));
  EXPECT_FALSE(sender_->is_ready());
  pass(60'000);
  EXPECT_TRUE(sender_->is_ready());
}

TEST_F(SimulatedBroker, DropsWhatExpiredOnItsWay) {
  broker_.hang_up("receiver");
  broker_.cut("receiver", 30'000);
  send("old", 1'000);
  send("good");
  pass(60'000);
  EXPECT_THAT(got_, ElementsAre("good"));
  ASSERT_EQ(broker_.dead_letters().size(), 1U);
  EXPECT_EQ(broker_.dead_letters()[0].reason, "expired");
}

TEST_F(SimulatedBroker, ForgetsEverythingWhenItsDataIsGone) {
  broker_.hang_up("receiver");
  send("1");
  pass(10);
  broker_.restart(1'000, true);
  pass(10'000);
  EXPECT_TRUE(got_.empty());
  EXPECT_TRUE(sender_->is_ready());
}

}  // namespace
}  // namespace educloud::sim
