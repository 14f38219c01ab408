#include "clc/domain/planner.hpp"

#include <gmock/gmock.h>

#include <random>

namespace educloud::clc {
namespace {

using testing::HasSubstr;
using testing::Not;

NodeSnapshot node(std::string host) {
  NodeSnapshot one;
  one.host = std::move(host);
  one.cluster = "cc1";
  one.age_ms = 1000;
  one.cpus = 4;
  one.cpu_usage = 10;
  one.mem_mib = 16384;
  one.mem_usage_mib = 1024;
  one.disk_mib = 200'000;
  one.disk_usage_mib = 50'000;
  return one;
}

PlacementRequest desktop() {
  PlacementRequest request;
  request.insid = "VD00000001";
  request.memory_mib = 4096;
  request.cpus = 1;
  request.image_mib = 5000;
  return request;
}

/// What the refusal says when `spoil` is done to the only node.
template <class F>
std::string refusal(F spoil, PlacementRequest request = desktop(),
                    std::vector<Reservation> reservations = {}) {
  auto one = node("nc1");
  spoil(one);
  const auto plan = clc::plan({one}, reservations, request, PlacementLimits{});
  if (plan) return "placed";
  EXPECT_EQ(plan.error().code, ErrorCode::exhausted);
  return plan.error().message;
}

TEST(Planner, TakesTheOnlyNodeThatFits) {
  const auto plan = clc::plan({node("nc1")}, {}, desktop(), {});
  ASSERT_TRUE(plan) << plan.error().message;
  EXPECT_EQ(plan->node, "nc1");
  EXPECT_EQ(plan->cluster, "cc1");
  EXPECT_THAT(plan->explain(), HasSubstr("nc1: chosen, fits: 9216 MiB left"));
}

TEST(Planner, SaysHowToGetNodesWhenThereAreNone) {
  const auto plan = clc::plan({}, {}, desktop(), {});
  ASSERT_FALSE(plan);
  EXPECT_THAT(plan.error().message, HasSubstr("no node is registered"));
}

TEST(Planner, NamesTheArithmeticOfMemory) {
  const auto text = refusal([](auto& n) { n.mem_mib = 6000; });
  EXPECT_THAT(
      text,
      HasSubstr("nc1: memory: needs 4096 + reserve 2048 = 6144 MiB, has 4976 of 6000 MiB (0 VMs hold 0)"));
  EXPECT_THAT(text, HasSubstr("free 1168 MiB or ask for at most 2928 MiB"));
}

TEST(Planner, CountsPromisesThatGuestsHaveNotTakenYet) {
  const std::vector<Reservation> promised{{"nc1", "VD0000000a", 8192, 1}};
  // 16384 - 1024 used - 8192 promised = 7168: fits 4096 + 2048, but not twice.
  EXPECT_EQ(refusal([](auto&) {}, desktop(), promised), "placed");
  const std::vector<Reservation> twice{{"nc1", "VD0000000a", 8192, 1}, {"nc1", "VD0000000b", 4096, 1}};
  EXPECT_THAT(refusal([](auto&) {}, desktop(), twice), HasSubstr("(2 VMs hold 12288)"));
}

TEST(Planner, DoesNotCountMemoryTwiceThatAGuestHasTaken) {
  const std::vector<Reservation> promised{{"nc1", "VD0000000a", 8192, 1}};
  const auto text = refusal(
      [](auto& n) {
        n.mem_usage_mib = 1024 + 8192;
        n.resident_mib["VD0000000a"] = 8192;
      },
      desktop(), promised);
  EXPECT_EQ(text, "placed");
}

TEST(Planner, IgnoresTheReservationOfTheInstanceItself) {
  auto request = desktop();
  request.memory_mib = 13'000;
  EXPECT_EQ(refusal([](auto&) {}, request, {{"nc1", request.insid, 13'000, 1}}), "placed");
}

TEST(Planner, RefusesForEachReason) {
  EXPECT_THAT(refusal([](auto& n) { n.enabled = false; }), HasSubstr("takes no new VMs"));
  EXPECT_THAT(refusal([](auto& n) { n.age_ms = -1; }), HasSubstr("no heartbeat since clc started"));
  EXPECT_THAT(refusal([](auto& n) { n.age_ms = 15'001; }), HasSubstr("last heartbeat 15 s ago (limit 15 s)"));
  EXPECT_THAT(refusal([](auto& n) { n.cluster_alive = false; }),
              HasSubstr("cluster controller cc1 is silent"));
  EXPECT_THAT(refusal([](auto& n) { n.cpu_usage = 80; }), HasSubstr("busy 80 % (limit 80 %)"));
  EXPECT_THAT(
      refusal([](auto& n) { n.disk_usage_mib = 190'000; }),
      HasSubstr("disk: needs 5000 for the image + 10240 MiB to stay free, has 10000 MiB -> free 5240 MiB"));
  EXPECT_THAT(refusal([](auto&) {}, desktop(), {{"nc1", "VD0000000a", 1, 16}}),
              HasSubstr("cpu: needs 1, has 0 of 4 x 4"));
  EXPECT_EQ(refusal([](auto& n) { n.age_ms = 15'000; }), "placed");
  EXPECT_EQ(refusal([](auto& n) { n.disk_usage_mib = 189'000, n.has_image = true; }), "placed");
}

TEST(Planner, HundredPercentMeansNeverTooBusy) {
  auto busy = node("nc1");
  busy.cpu_usage = 100;
  PlacementLimits limits;
  limits.max_cpu_usage = 100;
  EXPECT_TRUE(clc::plan({busy}, {}, desktop(), limits));
}

TEST(Planner, HonoursPins) {
  auto request = desktop();
  request.node_pin = "nc2";
  EXPECT_EQ(clc::plan({node("nc1"), node("nc2")}, {}, request, {})->node, "nc2");
  request.node_pin = "";
  request.cluster_pin = "cc9";
  const auto plan = clc::plan({node("nc1")}, {}, request, {});
  ASSERT_FALSE(plan);
  EXPECT_THAT(plan.error().message, HasSubstr("in cluster cc1, pinned to cc9 -> lift the pin"));
}

TEST(Planner, PrefersTheImageThenMemoryThenTheName) {
  auto roomy = node("nc1"), has_image = node("nc2"), twin = node("nc3");
  roomy.mem_mib = 65536;
  has_image.has_image = true;
  EXPECT_EQ(clc::plan({roomy, has_image, twin}, {}, desktop(), {})->node, "nc2");
  has_image.has_image = false;
  EXPECT_EQ(clc::plan({roomy, has_image, twin}, {}, desktop(), {})->node, "nc1");
  EXPECT_EQ(clc::plan({twin, has_image}, {}, desktop(), {})->node,
            "nc2");  // equal: by name, whatever the order
}

TEST(Planner, LongRefusalsStayReadable) {
  std::vector<NodeSnapshot> many;
  for (int i = 0; i < 300; ++i) {
    many.push_back(node("nc" + std::to_string(i)));
    many.back().enabled = false;
  }
  const auto plan = clc::plan(many, {}, desktop(), {});
  ASSERT_FALSE(plan);
  EXPECT_THAT(plan.error().message, HasSubstr("and 280 more"));
  EXPECT_LT(plan.error().message.size(), 2000u);
}

TEST(Planner, NeverPromisesMoreThanThereIs) {
  for (unsigned seed = 1; seed <= 200; ++seed) {
    std::mt19937 random(seed);
    const auto upto = [&](int most) { return static_cast<int>(random() % static_cast<unsigned>(most + 1)); };
    std::vector<NodeSnapshot> nodes;
    for (int i = 0; i < 1 + upto(5); ++i) {
      auto one = node("nc" + std::to_string(i));
      one.mem_mib = 2048 + upto(60'000);
      one.mem_usage_mib = upto(2000);
      one.cpus = 1 + upto(15);
      nodes.push_back(one);
    }
    const PlacementLimits limits;
    std::vector<Reservation> reservations;
    for (int i = 0; i < 60; ++i) {
      PlacementRequest request = desktop();
      request.insid = "VD" + std::to_string(i);
      request.memory_mib = 64 + upto(8000);
      request.cpus = 1 + upto(3);
      if (const auto plan = clc::plan(nodes, reservations, request, limits)) {
        reservations.push_back({plan->node, request.insid, request.memory_mib, request.cpus});
      }
    }
    for (const auto& one : nodes) {
      std::int64_t memory = 0;
      double cpus = 0;
      for (const auto& held : reservations) {
        if (held.node != one.host) continue;
        memory += held.memory_mib;
        cpus += held.cpus;
      }
      if (memory == 0) continue;
      EXPECT_LE(memory + limits.reserve_mib + one.mem_usage_mib, one.mem_mib) << "seed " << seed;
      EXPECT_LE(cpus, one.cpus * limits.cpu_overcommit) << "seed " << seed;
    }
  }
}

}  // namespace
}  // namespace educloud::clc
