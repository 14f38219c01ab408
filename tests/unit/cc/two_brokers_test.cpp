// A cluster with a broker (or vhost) of its own: clc at one, the nodes at another, cc at both.
#include <gtest/gtest.h>

#include "cc/app/bridge.hpp"
#include "common/bus/memory_bus.hpp"
#include "unit/cc/samples.hpp"

namespace educloud::cc {
namespace {

class TwoBrokers : public ::testing::Test {
 protected:
  TwoBrokers() {
    cloud_.bind("cc_cmd", "cc1", "cc_cmd_queue.cc1");
    cloud_.bind("clc_status", "taskstatus.#", "clc_status_queue");
    cloud_.bind("clc_status", "ccstatus.#", "clc_heartbeat_queue");
    // The cloud's own cluster has queues of the same names there.
    cloud_.bind("cc_status", "taskstatus.#", "cc_status_queue");
    cloud_.bind("nc_cmd", "nc1", "nc_cmd_queue.nc1");
    cluster_.bind("cc_status", "taskstatus.#", "cc_status_queue");
    cluster_.bind("nc_cmd", "nc1", "nc_cmd_queue.nc1");
    bridge_.subscribe();
    up_->start({});
    down_->start({});
    clc_->start({});
    node_->start({});
  }
  void order() {
    const auto command = sample_command(clock_.wall_ms() + 60'000);
    EXPECT_TRUE(clc_->publish({"cc_cmd", "cc1", msg::serialize(command), "id"}, {}));
  }
  void report() {
    EXPECT_TRUE(
        node_->publish({"cc_status", "taskstatus.nc-nc1", msg::serialize(sample_status()), "id"}, {}));
  }

  ManualClock clock_;
  bus::MemoryBroker cloud_, cluster_;
  NodeRegistry nodes_;
  PeerTable peers_;
  std::unique_ptr<bus::Bus> up_ = cloud_.connect("cc-cc1"), down_ = cluster_.connect("cc-cc1"),
                            clc_ = cloud_.connect("clc"), node_ = cluster_.connect("nc-nc1");
  Bridge bridge_{{*up_, *down_}, clock_, nodes_, peers_, "cc1"};
};

TEST_F(TwoBrokers, CommandsGoDownAndStatusesUp) {
  order();
  cloud_.deliver_all();
  EXPECT_EQ(cluster_.depth("nc_cmd_queue.nc1"), 1u);
  EXPECT_EQ(cloud_.depth("nc_cmd_queue.nc1"), 0u);
  EXPECT_EQ(cloud_.unsettled(), 0u);
  report();
  cluster_.deliver_all();
  EXPECT_EQ(cloud_.depth("clc_status_queue"), 1u);
  EXPECT_EQ(cluster_.unsettled(), 0u);
}

TEST_F(TwoBrokers, ItLeavesTheStatusesOfAnotherClusterAlone) {
  const auto other = cloud_.connect("nc-nc9");
  other->start({});
  EXPECT_TRUE(other->publish({"cc_status", "taskstatus.nc-nc9", msg::serialize(sample_status()), "id"}, {}));
  cloud_.deliver_all();
  EXPECT_EQ(cloud_.depth("cc_status_queue"), 1u);
  EXPECT_EQ(cloud_.depth("clc_status_queue"), 0u);
}

TEST_F(TwoBrokers, ACommandWaitsHereForTheNodesBroker) {
  cluster_.set_up(false);
  order();
  cloud_.deliver_all();
  // Given back each time, it would be a dead letter after twenty.
  EXPECT_EQ(cloud_.unsettled(), 1u);
  bridge_.retry_parked();
  EXPECT_EQ(cloud_.unsettled(), 1u);
  cluster_.set_up(true);
  bridge_.retry_parked();
  EXPECT_EQ(cluster_.depth("nc_cmd_queue.nc1"), 1u);
  EXPECT_EQ(cloud_.unsettled(), 0u);
  EXPECT_EQ(cloud_.depth("cc_cmd_queue.cc1"), 0u);
}

TEST_F(TwoBrokers, AStatusWaitsHereForTheClouds) {
  cloud_.set_up(false);
  report();
  cluster_.deliver_all();
  EXPECT_EQ(cluster_.unsettled(), 1u);
  cloud_.set_up(true);
  bridge_.retry_parked();
  EXPECT_EQ(cloud_.depth("clc_status_queue"), 1u);
  EXPECT_EQ(cluster_.unsettled(), 0u);
}

TEST_F(TwoBrokers, WhatWaitsHereWhileItsOwnSideGoesTooIsOnlySentTwice) {
  cluster_.set_up(false);
  order();
  cloud_.deliver_all();
  cloud_.set_up(false);
  cloud_.set_up(true);  // the command comes again
  cloud_.deliver_all();
  cluster_.set_up(true);
  bridge_.retry_parked();
  EXPECT_EQ(cluster_.depth("nc_cmd_queue.nc1"), 2u) << "the node knows the id";
  EXPECT_EQ(cloud_.unsettled(), 0u);
}

TEST_F(TwoBrokers, WaitingIsBounded) {
  cluster_.set_up(false);
  for (int i = 0; i < 300; ++i) order();
  cloud_.deliver_all(1000);
  EXPECT_EQ(cloud_.unsettled(), 256u);
  EXPECT_EQ(cloud_.depth("cc_cmd_queue.cc1"), 44u) << "the rest was given back";
  cluster_.set_up(true);
  bridge_.retry_parked();
  cloud_.deliver_all();
  EXPECT_EQ(cluster_.depth("nc_cmd_queue.nc1"), 300u);
}

TEST_F(TwoBrokers, WithoutItsNodesBrokerItDoesNotLookAlive) {
  msg::CcStatus own;
  own.ccid = "cc#52:54:00:00:00:02#status";
  cluster_.set_up(false);
  EXPECT_FALSE(bridge_.is_ready());
  bridge_.send_heartbeat(own);
  EXPECT_EQ(cloud_.depth("clc_heartbeat_queue"), 0u);
  cluster_.set_up(true);
  EXPECT_TRUE(bridge_.is_ready());
  bridge_.send_heartbeat(own);
  EXPECT_EQ(cloud_.depth("clc_heartbeat_queue"), 1u);
}

}  // namespace
}  // namespace educloud::cc
