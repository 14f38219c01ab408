#include "common/base/limits.hpp"
#include "common/bus/amqp_connection_impl.hpp"
#include "integration/bus/fixture.hpp"
#include "support/fault.hpp"

namespace educloud::test {
namespace {

using bus::Outcome;

const std::vector<Outcome> kConfirmed{Outcome::confirmed}, kReturned{Outcome::returned},
    kFailed{Outcome::failed};

class PublishTest : public BusTest {
 protected:
  void SetUp() override { bus_ = bus::make_rabbit_bus(broker().options("alice")); }
  void publish(const std::string& key, const std::string& msgid) {
    auto ok = bus_->publish(message(key, msgid), outcomes_.of(msgid));
    ASSERT_TRUE(ok) << ok.error().message;
  }
  Outcomes outcomes_;
  std::unique_ptr<bus::Bus> bus_;
};

TEST_F(PublishTest, IsConfirmedOnceAQueueHasIt) {
  std::atomic<int> ready{0};
  bus_->start([&] { ++ready; });
  publish("work", "m1");
  ASSERT_TRUE(outcomes_.wait(1));
  EXPECT_EQ(outcomes_.get("m1"), kConfirmed);
  EXPECT_EQ(ready, 1);
  EXPECT_TRUE(bus_->is_ready());
}

TEST_F(PublishTest, IsReturnedWhenNoQueueIsBoundAndItsNeighboursAreNot) {
  bus_->start({});
  publish("work", "before");
  publish("nowhere", "lost");
  publish("work", "after");
  ASSERT_TRUE(outcomes_.wait(3));
  EXPECT_EQ(outcomes_.get("before"), kConfirmed);
  EXPECT_EQ(outcomes_.get("lost"), kReturned);
  educloud::test::injected("unroutable");
  EXPECT_EQ(outcomes_.get("after"), kConfirmed);
}

TEST_F(PublishTest, FailsWhenTheQueueIsFullAndRejects) {
  bus_->start({});
  for (const auto* id : {"1", "2", "3"}) {
    publish("small", id);
  }
  ASSERT_TRUE(outcomes_.wait(3));
  publish("small", "4");
  ASSERT_TRUE(outcomes_.wait(4));
  EXPECT_EQ(outcomes_.get("3"), kConfirmed);
  EXPECT_EQ(outcomes_.get("4"), kFailed);
  educloud::test::injected("unroutable");
}

TEST_F(PublishTest, ToAnExchangeThatDoesNotExistFailsAndTheBusRecovers) {
  bus_->start({});
  auto wrong = message("work", "wrong");
  wrong.exchange = "no_such_exchange";
  ASSERT_TRUE(bus_->publish(std::move(wrong), outcomes_.of("wrong")));
  ASSERT_TRUE(outcomes_.wait(1));
  EXPECT_EQ(outcomes_.get("wrong"), kFailed);
  publish("work", "right");
  ASSERT_TRUE(outcomes_.wait(2));
  EXPECT_EQ(outcomes_.get("right"), kConfirmed);
}

TEST_F(PublishTest, CarriesIdLoginTypeAndExpiration) {
  bus_->start({});
  auto out = message("work", "m1");
  out.expiration = std::chrono::minutes{1};
  ASSERT_TRUE(bus_->publish(std::move(out), outcomes_.of("m1")));
  ASSERT_TRUE(outcomes_.wait(1));
  auto raw = bus::AmqpConnection::open(broker().options("alice"), "raw");
  ASSERT_TRUE(raw) << raw.error().message;
  ASSERT_TRUE((*raw)->open_channel(1));
  const auto state = (*raw)->state();
  ASSERT_EQ(amqp_basic_get(state, 1, amqp_cstring_bytes("work"), 0).reply_type, AMQP_RESPONSE_NORMAL);
  amqp_message_t got;
  ASSERT_EQ(amqp_read_message(state, 1, &got, 0).reply_type, AMQP_RESPONSE_NORMAL);
  EXPECT_EQ(bus::to_string(got.properties.message_id), "m1");
  EXPECT_EQ(bus::to_string(got.properties.user_id), "alice");
  EXPECT_EQ(bus::to_string(got.properties.content_type), "application/json");
  EXPECT_EQ(bus::to_string(got.properties.expiration), "60000");
  EXPECT_EQ(got.properties.delivery_mode, AMQP_DELIVERY_PERSISTENT);
  amqp_destroy_message(&got);
}

TEST_F(PublishTest, UnderAnotherLoginIsRefusedByTheBroker) {
  auto raw = bus::AmqpConnection::open(broker().options("bob"), "raw");
  ASSERT_TRUE(raw) << raw.error().message;
  ASSERT_TRUE((*raw)->open_channel(1));
  amqp_basic_properties_t properties{};
  properties._flags = AMQP_BASIC_USER_ID_FLAG;
  properties.user_id = amqp_cstring_bytes("alice");
  amqp_basic_publish((*raw)->state(), 1, amqp_cstring_bytes("cmd"), amqp_cstring_bytes("work"), 0, 0,
                     &properties, amqp_cstring_bytes("{}"));
  std::string refusal;
  EXPECT_TRUE(wait_until([&] {
    auto frame = (*raw)->poll_frame();
    if (!frame) refusal = frame.error().message;
    return !frame;
  }));
  EXPECT_NE(refusal.find("406"), std::string::npos) << refusal;
}

TEST_F(PublishTest, TooLargeOrTooManyAreRefusedAtOnce) {
  dirty_ = false;
  auto options = broker().options("alice");
  options.queue_limit = 2;
  auto small = bus::make_rabbit_bus(options);  // not started: nothing leaves the queue
  auto large = message("work", "large");
  large.body.assign(limits::kMessageBytes + 1, 'x');
  EXPECT_EQ(small->publish(large, {}).error().code, ErrorCode::too_large);
  EXPECT_TRUE(small->publish(message("work", "1"), outcomes_.of("1")));
  EXPECT_TRUE(small->publish(message("work", "2"), outcomes_.of("2")));
  EXPECT_EQ(small->publish(message("work", "3"), outcomes_.of("3")).error().code, ErrorCode::exhausted);
  small->stop();
  EXPECT_EQ(outcomes_.get("1"), kFailed);
  EXPECT_EQ(outcomes_.get("2"), kFailed);
  EXPECT_EQ(outcomes_.count(), 2u);
  EXPECT_EQ(small->publish(message("work", "4"), {}).error().code, ErrorCode::unavailable);
}

TEST_F(PublishTest, FailsAfterItsTimeWhenThereIsNoBroker) {
  dirty_ = false;
  auto options = broker().options("alice");
  options.port = free_port();
  options.confirm_timeout = std::chrono::seconds{1};
  auto lonely = bus::make_rabbit_bus(options);
  lonely->start({});
  ASSERT_TRUE(lonely->publish(message("work", "m"), outcomes_.of("m")));
  ASSERT_TRUE(outcomes_.wait(1, std::chrono::seconds{10}));
  EXPECT_EQ(outcomes_.get("m"), kFailed);
  EXPECT_FALSE(lonely->is_ready());
}

TEST_F(PublishTest, WithAWrongPasswordNeverBecomesReady) {
  dirty_ = false;
  auto options = broker().options("alice");
  broker().write("wrong.secret", "wrong\n", 0600);
  options.password_file = broker().file("wrong.secret");
  auto refused = bus::AmqpConnection::open(options, "raw");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::permission_denied) << refused.error().message;
  EXPECT_EQ(refused.error().message.find("wrong\n"), std::string::npos);
}

TEST_F(PublishTest, SpeaksTlsWithABrokerWhoseCertificateItCanVerify) {
  auto options = broker().options("alice");
  options.host = "localhost";
  options.port = std::stoi(TestBroker::run({"cat", broker().file("tls_port")}));
  options.tls_ca_file = broker().file("ca.pem");
  auto tls = bus::make_rabbit_bus(options);
  tls->start({});
  ASSERT_TRUE(tls->publish(message("work", "m"), outcomes_.of("m")));
  ASSERT_TRUE(outcomes_.wait(1));
  EXPECT_EQ(outcomes_.get("m"), kConfirmed);

  options.tls_ca_file = broker().file("other-ca.pem");
  auto unknown_ca = bus::AmqpConnection::open(options, "raw");
  EXPECT_FALSE(unknown_ca);
  options.tls_ca_file = broker().file("ca.pem");
  options.host = "127.0.0.1";  // the certificate names localhost only
  auto other_name = bus::AmqpConnection::open(options, "raw");
  EXPECT_FALSE(other_name);
}

}  // namespace
}  // namespace educloud::test
