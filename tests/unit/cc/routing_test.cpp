#include "cc/domain/routing.hpp"

#include <gtest/gtest.h>

#include "cc/domain/node_registry.hpp"
#include "unit/cc/samples.hpp"

namespace educloud::cc {
namespace {

constexpr std::int64_t kNow = 1'700'000'000'000;

TEST(RouteCommand, GoesToItsNodeUnchangedUntilItsDeadline) {
  auto json = msg::encode(sample_command(kNow + 60'000));
  json["a_key_of_tomorrow"] = 1;
  const auto body = json.dump();
  const auto route = route_command(body, "cc1", kNow);
  ASSERT_TRUE(route) << route.error().message;
  EXPECT_EQ(route->forward.routing_key, "nc1");
  EXPECT_EQ(route->forward.body, body);
  EXPECT_EQ(route->forward.msgid, kCmdid);
  EXPECT_EQ(route->forward.expiration, std::chrono::seconds{60});
}

TEST(RouteCommand, RefusesWhatIsWrongNamingTheKey) {
  const auto key_of = [](auto change) {
    auto command = sample_command(kNow + 60'000);
    change(command);
    const auto route = route_command(msg::serialize(command), "cc1", kNow);
    return route ? std::string("accepted") : route.error().key;
  };
  EXPECT_EQ(key_of([](auto&) {}), "accepted");
  EXPECT_EQ(key_of([](auto& c) { c.nid = "nc1.evil#"; }), "nid");
  EXPECT_EQ(key_of([](auto& c) { c.nid = ""; }), "nid");
  EXPECT_EQ(key_of([](auto& c) { c.ccid = "cc2"; }), "ccid");
  EXPECT_EQ(key_of([](auto& c) { c.op = "image/import"; }), "op");
  EXPECT_EQ(key_of([](auto& c) { c.op = "rm -rf"; }), "op");
  EXPECT_EQ(key_of([](auto& c) { c.tid = "../../etc"; }), "tid");
  EXPECT_EQ(key_of([](auto& c) { c.cmdid = std::string(36, 'x'); }), "cmdid");
  EXPECT_EQ(key_of([](auto& c) { c.deadline = kNow; }), "deadline");
  EXPECT_EQ(route_command("{not json", "cc1", kNow).error().code, ErrorCode::invalid_argument);
  EXPECT_EQ(route_command(std::string(70'000, ' '), "cc1", kNow).error().code, ErrorCode::too_large);
  EXPECT_EQ(route_command(msg::serialize(sample_command(kNow - 1)), "cc1", kNow).error().code,
            ErrorCode::timeout);
}

TEST(Undeliverable, IsAFailedStatusThatNamesNodeAndRemedy) {
  const auto status = undeliverable(sample_command(kNow + 1), "cc1", kNow);
  EXPECT_EQ(status.phase, "editing");
  EXPECT_EQ(status.state, "stopped");
  EXPECT_EQ(status.event, "failed");
  EXPECT_EQ(status.failed, 1);
  EXPECT_EQ(status.final, 1);
  EXPECT_EQ(status.cmdid, kCmdid);
  EXPECT_EQ(status.nid, "nc1");
  EXPECT_EQ(status.ccid, "cc1");
  EXPECT_EQ(status.epoch, 3);
  EXPECT_EQ(status.attempt, 2);
  EXPECT_EQ(status.seq, 0);
  EXPECT_NE(status.errormsg.find("nc1"), std::string::npos);
  EXPECT_NE(status.errormsg.find("educloud init"), std::string::npos);
  const auto again = msg::parse<msg::TaskStatus>(msg::serialize(status));
  EXPECT_TRUE(again) << again.error().message;
}

TEST(RouteStatus, IsStampedAndKeepsKeysOfTomorrow) {
  auto json = msg::encode(sample_status());
  json["a_key_of_tomorrow"] = 1;
  const auto route = route_status(json.dump(), "nc-nc1", "cc1");
  ASSERT_TRUE(route) << route.error().message;
  EXPECT_EQ(route->forward.routing_key, "taskstatus.cc-cc1");
  EXPECT_EQ(route->forward.msgid, "m-1");
  const auto out = nlohmann::json::parse(route->forward.body);
  EXPECT_EQ(out["ccid"], "cc1");
  EXPECT_EQ(out["nid"], "nc1");
  EXPECT_EQ(out["a_key_of_tomorrow"], 1);
}

TEST(RouteStatus, IsRefusedUnlessTheBrokerProvesItsNode) {
  const auto body = msg::serialize(sample_status());
  EXPECT_EQ(route_status(body, "nc-nc2", "cc1").error().code, ErrorCode::permission_denied);
  EXPECT_EQ(route_status(body, "", "cc1").error().code, ErrorCode::permission_denied);
  EXPECT_EQ(route_status(body, "clc", "cc1").error().code, ErrorCode::permission_denied);
  auto nameless = sample_status();
  nameless.nid = "";
  EXPECT_EQ(route_status(msg::serialize(nameless), "nc-", "cc1").error().key, "nid");
  EXPECT_EQ(route_status("[1]", "nc-nc1", "cc1").error().code, ErrorCode::invalid_argument);
}

TEST(RouteHeartbeat, IsStampedAndExpires) {
  const auto route = route_heartbeat(msg::serialize(sample_heartbeat()), "nc-nc1", "cc1");
  ASSERT_TRUE(route) << route.error().message;
  EXPECT_EQ(route->forward.routing_key, "nodestatus.cc-cc1");
  EXPECT_EQ(route->forward.expiration, std::chrono::seconds{30});
  EXPECT_EQ(nlohmann::json::parse(route->forward.body)["ccid"], "cc1");
  EXPECT_FALSE(route_heartbeat(msg::serialize(sample_heartbeat()), "nc-nc2", "cc1"));
}

TEST(NodeRegistry, RemembersWhereNodesAreWhileTheySpeak) {
  NodeRegistry nodes;
  ASSERT_TRUE(nodes.remember("nc1", {"10.0.0.11", 8003}, 1000));
  const auto found = nodes.find("nc1", 2000);
  ASSERT_TRUE(found) << found.error().message;
  EXPECT_EQ(found->ip, "10.0.0.11");
  EXPECT_EQ(found->port, 8003);
  EXPECT_EQ(nodes.find("nc2", 2000).error().code, ErrorCode::not_found);
  EXPECT_EQ(nodes.find("nc1", 1001 + NodeRegistry::kFreshMs).error().code, ErrorCode::unavailable);
  EXPECT_FALSE(nodes.remember("nc3", {"", 8003}, 1000));
  EXPECT_FALSE(nodes.remember("nc3", {"10.0.0.1/x", 8003}, 1000));
  EXPECT_FALSE(nodes.remember("nc3", {"10.0.0.1", 0}, 1000));
}

TEST(NodeRegistry, IsBoundedAndForgetsTheQuietest) {
  NodeRegistry nodes;
  for (int i = 0; i <= static_cast<int>(NodeRegistry::kMaxNodes); ++i) {
    ASSERT_TRUE(nodes.remember("nc" + std::to_string(i), {"10.0.0.1", 8003}, 1000 + i));
  }
  EXPECT_EQ(nodes.size(), NodeRegistry::kMaxNodes);
  EXPECT_FALSE(nodes.find("nc0", 2000));
  EXPECT_TRUE(nodes.find("nc1", 2000));
}

}  // namespace
}  // namespace educloud::cc
