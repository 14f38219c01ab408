#include "cc/app/bridge.hpp"

#include <gtest/gtest.h>

#include "common/bus/memory_bus.hpp"
#include "unit/cc/samples.hpp"

namespace educloud::cc {
namespace {

using bus::Delivery;
using bus::Verdict;

/// clc, cc1 and node nc1 at one broker in memory.
class BridgeTest : public ::testing::Test {
 protected:
  BridgeTest() {
    broker_.bind("cc_cmd", "cc1", "cc_cmd_queue.cc1");
    broker_.bind("cc_status", "taskstatus.#", "cc_status_queue");
    broker_.bind("cc_status", "nodestatus.#", "cc_heartbeat_queue");
    broker_.bind("nc_cmd", "nc1", "nc_cmd_queue.nc1");
    broker_.bind("clc_status", "taskstatus.#", "clc_status_queue");
    broker_.bind("clc_status", "nodestatus.#", "clc_heartbeat_queue");
    broker_.bind("clc_status", "ccstatus.#", "clc_heartbeat_queue_cc");
    bridge_.subscribe();
    cc_->start({});
    collect(*clc_, "clc_status_queue", statuses_);
    collect(*clc_, "clc_heartbeat_queue", heartbeats_);
    collect(*clc_, "clc_heartbeat_queue_cc", heartbeats_);
    clc_->start({});
    collect(*node_, "nc_cmd_queue.nc1", commands_);
    node_->start({});
  }
  static void collect(bus::Bus& bus, const std::string& queue, std::vector<Delivery>& into) {
    bus.subscribe({queue, 64, [&into](Delivery d) {
                     d.settle(Verdict::ack);
                     into.push_back(std::move(d));
                   }});
  }
  void order(const std::string& body) { EXPECT_TRUE(clc_->publish({"cc_cmd", "cc1", body, "id"}, {})); }
  void order(const msg::Command& command) { order(msg::serialize(command)); }
  void report(bus::Bus& from, const std::string& key, const std::string& body) {
    EXPECT_TRUE(from.publish({"cc_status", key, body, "id"}, {}));
  }
  msg::Command command() { return sample_command(clock_.wall_ms() + 60'000); }

  ManualClock clock_;
  bus::MemoryBroker broker_;
  NodeRegistry nodes_;
  PeerTable peers_;
  std::unique_ptr<bus::Bus> cc_ = broker_.connect("cc-cc1"), clc_ = broker_.connect("clc"),
                            node_ = broker_.connect("nc-nc1");
  Bridge bridge_{{*cc_, *cc_}, clock_, nodes_, peers_, "cc1"};
  std::vector<Delivery> commands_, statuses_, heartbeats_;
};

TEST_F(BridgeTest, ACommandReachesItsNodeOnceAndIsAcked) {
  order(command());
  broker_.deliver_all();
  ASSERT_EQ(commands_.size(), 1u);
  EXPECT_EQ(commands_[0].body, msg::serialize(command()));
  EXPECT_EQ(commands_[0].user_id, "cc-cc1");
  EXPECT_EQ(broker_.depth("cc_cmd_queue.cc1"), 0u);
  EXPECT_EQ(broker_.unsettled(), 0u);
}

TEST_F(BridgeTest, EachNodeGetsItsOwnGrantAndNobodyElses) {
  std::vector<Delivery> grants, others;
  broker_.bind("nc_cmd", "lease.nc1", "nc_lease_queue.nc1");
  broker_.bind("nc_cmd", "lease.nc2", "nc_lease_queue.nc2");
  const auto first = broker_.connect("nc-nc1"), second = broker_.connect("nc-nc2");
  collect(*first, "nc_lease_queue.nc1", grants);
  collect(*second, "nc_lease_queue.nc2", others);
  first->start({});
  second->start({});
  msg::Lease lease;
  lease.ccid = "cc1";
  lease.grants = {{"nc1", 1}, {"nc2", 4}, {"nowhere", 1}};
  order(msg::serialize(lease));
  lease.ccid = "cc2";
  order(msg::serialize(lease));
  lease.ccid = "cc1";
  lease.grants = {{"../nc1", 1}};
  order(msg::serialize(lease));
  broker_.deliver_all();
  ASSERT_EQ(grants.size(), 1u);
  const auto own = msg::parse<msg::Lease>(grants[0].body);
  ASSERT_TRUE(own);
  ASSERT_EQ(own->grants.size(), 1u);
  EXPECT_EQ(own->grants[0].host, "nc1");
  EXPECT_EQ(others.size(), 1u);
  EXPECT_EQ(broker_.dead_letters(), 2u) << "for another cluster, and not a node's name";
  EXPECT_EQ(broker_.unsettled(), 0u);
}

TEST_F(BridgeTest, AnInventoryIsCheckedAndStampedLikeAHeartbeat) {
  msg::Inventory inventory;
  inventory.host = "nc1";
  inventory.ccid = "cc9";
  inventory.round = "r1";
  report(*node_, "nodestatus.nc-nc1", msg::serialize(inventory));
  inventory.host = "nc2";
  report(*node_, "nodestatus.nc-nc1", msg::serialize(inventory));
  broker_.deliver_all();
  ASSERT_EQ(heartbeats_.size(), 1u);
  const auto passed = msg::parse<msg::Inventory>(heartbeats_[0].body);
  ASSERT_TRUE(passed);
  EXPECT_EQ(passed->ccid, "cc1");
  EXPECT_EQ(heartbeats_[0].routing_key, "nodestatus.cc-cc1");
  EXPECT_EQ(broker_.dead_letters(), 1u) << "nc1 may not speak for nc2";
}

TEST_F(BridgeTest, ADuplicatePassesBecauseTheNodeKnowsBest) {
  order(command());
  order(command());
  broker_.deliver_all();
  EXPECT_EQ(commands_.size(), 2u);
}

TEST_F(BridgeTest, ACommandIsNotAckedBeforeTheNodesQueueHasIt) {
  // A bus whose confirms come when the test says so.
  class SlowBus : public bus::Bus {
   public:
    Result<> publish(bus::Outgoing message, bus::OnOutcome on_outcome) override {
      published.emplace_back(std::move(message), std::move(on_outcome));
      return {};
    }
    void subscribe(bus::Subscription s) override { subscriptions.push_back(std::move(s)); }
    void start(std::function<void()>) override {}
    void stop() override {}
    bool is_ready() const override { return true; }
    std::vector<std::pair<bus::Outgoing, bus::OnOutcome>> published;
    std::vector<bus::Subscription> subscriptions;
  } slow;
  Bridge bridge({slow, slow}, clock_, nodes_, peers_, "cc1");
  bridge.subscribe();
  std::vector<Verdict> verdicts;
  Delivery delivery;
  delivery.body = msg::serialize(command());
  delivery.settle = [&](Verdict v) { verdicts.push_back(v); };
  slow.subscriptions.at(0).on_delivery(delivery);
  ASSERT_EQ(slow.published.size(), 1u);
  EXPECT_EQ(slow.published[0].first.exchange, "nc_cmd");
  EXPECT_EQ(slow.published[0].first.expiration, std::chrono::minutes{1});
  EXPECT_TRUE(verdicts.empty());
  slow.published[0].second(bus::Outcome::confirmed);
  EXPECT_EQ(verdicts, std::vector{Verdict::ack});

  verdicts.clear();
  slow.subscriptions.at(0).on_delivery(delivery);
  slow.published[1].second(bus::Outcome::failed);
  EXPECT_EQ(verdicts, std::vector{Verdict::requeue});

  verdicts.clear();
  slow.subscriptions.at(0).on_delivery(delivery);
  slow.published[2].second(bus::Outcome::returned);
  EXPECT_TRUE(verdicts.empty());  // first clc must know
  ASSERT_EQ(slow.published.size(), 4u);
  EXPECT_EQ(slow.published[3].first.exchange, "clc_status");
  slow.published[3].second(bus::Outcome::confirmed);
  EXPECT_EQ(verdicts, std::vector{Verdict::ack});
}

TEST_F(BridgeTest, WhileTheBrokerIsAwayNothingIsLost) {
  order(command());
  broker_.set_up(false);
  EXPECT_EQ(broker_.deliver_all(), 0);
  broker_.set_up(true);
  broker_.deliver_all();
  EXPECT_EQ(commands_.size(), 1u);
}

TEST_F(BridgeTest, BadCommandsAreDeadLetteredAndTheirNeighboursPass) {
  order(std::string("{not json"));
  auto misdirected = command();
  misdirected.ccid = "cc2";
  order(misdirected);
  auto strange = command();
  strange.nid = "a/../b";
  order(strange);
  order(command());
  broker_.deliver_all();
  EXPECT_EQ(broker_.dead_letters(), 3u);
  EXPECT_EQ(commands_.size(), 1u);
}

TEST_F(BridgeTest, AnExpiredCommandIsDropped) {
  order(command());
  clock_.advance(std::chrono::minutes{2});
  broker_.deliver_all();
  EXPECT_TRUE(commands_.empty());
  EXPECT_EQ(broker_.dead_letters(), 0u);
  EXPECT_EQ(broker_.unsettled(), 0u);
}

TEST_F(BridgeTest, ACommandForAnUnknownNodeFailsItsTask) {
  auto lost = command();
  lost.nid = "nc9";
  order(lost);
  broker_.deliver_all();
  ASSERT_EQ(statuses_.size(), 1u);
  const auto status = msg::parse<msg::TaskStatus>(statuses_[0].body);
  ASSERT_TRUE(status) << status.error().message;
  EXPECT_EQ(statuses_[0].routing_key, "taskstatus.cc-cc1");
  EXPECT_EQ(statuses_[0].user_id, "cc-cc1");
  EXPECT_EQ(status->event, "failed");
  EXPECT_EQ(status->nid, "nc9");
  EXPECT_NE(status->errormsg.find("nc9"), std::string::npos);
  EXPECT_EQ(broker_.unsettled(), 0u);
  EXPECT_EQ(broker_.depth("cc_cmd_queue.cc1"), 0u);
}

TEST_F(BridgeTest, AStatusIsStampedAndPassed) {
  report(*node_, "taskstatus.nc-nc1", msg::serialize(sample_status()));
  broker_.deliver_all();
  ASSERT_EQ(statuses_.size(), 1u);
  EXPECT_EQ(nlohmann::json::parse(statuses_[0].body)["ccid"], "cc1");
  EXPECT_EQ(broker_.unsettled(), 0u);
}

TEST_F(BridgeTest, AStatusUnderAnotherNodesNameIsDeadLettered) {
  const auto thief = broker_.connect("nc-nc2");
  thief->start({});
  report(*thief, "taskstatus.nc-nc2", msg::serialize(sample_status()));
  report(*node_, "taskstatus.nc-nc1", "{}");
  broker_.deliver_all();
  EXPECT_TRUE(statuses_.empty());
  EXPECT_EQ(broker_.dead_letters(), 2u);
}

TEST_F(BridgeTest, AHeartbeatTellsWhereTheNodeIsAndGoesOn) {
  report(*node_, "nodestatus.nc-nc1", msg::serialize(sample_heartbeat()));
  broker_.deliver_all();
  ASSERT_EQ(heartbeats_.size(), 1u);
  EXPECT_EQ(heartbeats_[0].routing_key, "nodestatus.cc-cc1");
  const auto where = nodes_.find("nc1", clock_.boot_ms());
  ASSERT_TRUE(where);
  EXPECT_EQ(where->port, 8003);
}

TEST_F(BridgeTest, AHeartbeatTellsWhatTheNodeHas) {
  auto status = sample_heartbeat();
  status.images.push_back({"IMG00000001", 3, std::string(64, 'd')});
  report(*node_, "nodestatus.nc-nc1", msg::serialize(status));
  broker_.deliver_all();
  const auto members = peers_.members("IMG00000001", 3, std::string(64, 'd'), "nc2", clock_.boot_ms());
  ASSERT_EQ(members.size(), 1u);
  EXPECT_EQ(members[0], (PeerTable::Member{"nc1", true}));
}

TEST_F(BridgeTest, ItsOwnHeartbeatIsDroppedWhileTheBrokerIsAway) {
  msg::CcStatus own;
  own.ccid = "cc#52:54:00:00:00:02#status";
  broker_.set_up(false);
  bridge_.send_heartbeat(own);
  broker_.set_up(true);
  bridge_.send_heartbeat(own);
  broker_.deliver_all();
  ASSERT_EQ(heartbeats_.size(), 1u);
  EXPECT_EQ(heartbeats_[0].routing_key, "ccstatus.cc-cc1");
}

}  // namespace
}  // namespace educloud::cc
