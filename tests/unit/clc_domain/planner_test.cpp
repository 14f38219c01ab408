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
  const auto text = refusal([](auto& n) { n.mem_mib = 8000, n.mem_usage_mib = 3000; });
  EXPECT_THAT(
      text,
      HasSubstr("nc1: memory: needs 4096 + reserve 2048 = 6144 MiB, has 5000 of 8000 MiB (0 VMs hold 0)"));
  EXPECT_THAT(text, HasSubstr("free 1144 MiB or ask for at most 2952 MiB"));
}

TEST(Planner, ProposesNothingThatCannotHelp) {
  // Nothing that is stopped makes the machine larger.
  EXPECT_THAT(refusal([](auto& n) { n.mem_mib = 6000; }), HasSubstr("-> ask for at most 2928 MiB"));
  EXPECT_THAT(refusal([](auto& n) { n.mem_mib = 2048; }), HasSubstr("-> take a node with more memory"));
  auto many = desktop();
  many.cpus = 17;
  EXPECT_THAT(refusal([](auto&) {}, many), HasSubstr("-> ask for at most 16 cpus"));
  // Enabling it alone would not do.
  const auto both = refusal([](auto& n) { n.state = NodeState::drained, n.mem_usage_mib = 14'000; });
  EXPECT_THAT(both, HasSubstr("takes no new VMs (drained); memory: needs"));
  EXPECT_THAT(both, HasSubstr("-> educloud node enable nc1, and free 3760 MiB"));
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

TEST(Planner, CountsWhatAVmWasStartedWithThoughItsDefinitionIsSmallerNow) {
  const std::vector<Reservation> promised{{"nc1", "VD0000000a", 512, 1}};
  EXPECT_EQ(refusal([](auto&) {}, desktop(), promised), "placed");
  const auto text = refusal([](auto& n) { n.sizes["VD0000000a"] = {12'288, 2}; }, desktop(), promised);
  EXPECT_THAT(text, HasSubstr("(1 VMs hold 12288)"));
  std::vector<Reservation> larger{{"nc1", "VD0000000a", 12'288, 1}};
  const auto small = [](auto& n) { n.sizes["VD0000000a"] = {512, 1}; };
  EXPECT_THAT(refusal(small, desktop(), larger), HasSubstr("(1 VMs hold 12288)"));
  larger[0] = {"nc1", "VD0000000a", 4'000'000, 256, true, "nc1"};
  EXPECT_EQ(refusal(small, desktop(), larger), "placed") << "it runs: that is for its next start";
  EXPECT_THAT(refusal([](auto&) {}, desktop(), larger), HasSubstr("(1 VMs hold 4000000)")) << "nothing told";
}

TEST(Planner, IgnoresTheReservationOfTheInstanceItself) {
  auto request = desktop();
  request.memory_mib = 13'000;
  EXPECT_EQ(refusal([](auto&) {}, request, {{"nc1", request.insid, 13'000, 1}}), "placed");
}

TEST(Planner, NamesTheFactorOfPromisedCpusAsItIs) {
  NodeFacts node;
  node.host = "nc1";
  node.age_ms = 0;
  node.cpus = 2;
  node.mem_mib = node.memory_left_mib = node.disk_left_mib = 100'000;
  PlacementLimits limits;
  PlacementRequest request;
  request.cpus = 64;
  for (const auto& [factor, text] : {std::pair(4.0, "of 2 x 4 ("),
                                     {1.6, "of 2 x 1.6 ("},
                                     {0.25, "of 2 x 0.25 ("},
                                     {10.0, "of 2 x 10 ("}}) {
    limits.cpu_overcommit = factor;
    EXPECT_THAT(explain(node, request, limits).reason, HasSubstr(text));
  }
}

TEST(Planner, RefusesForEachReason) {
  EXPECT_THAT(refusal([](auto& n) { n.state = NodeState::no_new; }), HasSubstr("takes no new VMs"));
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

TEST(Planner, AServerStaysWhereItsDiskIs) {
  auto request = desktop();
  request.disk_cluster = "cc2";
  EXPECT_THAT(
      refusal([](auto&) {}, request),
      HasSubstr("in cluster cc1, its database disk lies in cc2 -> make room on a node of cluster cc2"));
  auto there = node("nc2");
  there.cluster = "cc2";
  EXPECT_EQ(clc::plan({node("nc1"), there}, {}, request, {})->node, "nc2");
}

TEST(Planner, AServerMayShareABusierNodeAndWantsMoreDisk) {
  const auto server = server_limits({});
  EXPECT_EQ(server.max_cpu_usage, 90);
  EXPECT_EQ(server.reserve_mib, 2048);
  EXPECT_EQ(server.min_disk_mib, 20 * 1024);
  PlacementLimits never;
  never.max_cpu_usage = 100;
  EXPECT_EQ(server_limits(never).max_cpu_usage, 100);
  auto busy = node("nc1");
  busy.cpu_usage = 85;
  EXPECT_FALSE(clc::plan({busy}, {}, desktop(), {}));
  EXPECT_TRUE(clc::plan({busy}, {}, desktop(), server));
  auto full = node("nc1");
  full.disk_mib = full.disk_usage_mib + 18 * 1024;
  EXPECT_TRUE(clc::plan({full}, {}, desktop(), {}));
  EXPECT_FALSE(clc::plan({full}, {}, desktop(), server));
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

TEST(Planner, NamesTheNodeThatIsNearestToFitting) {
  auto full = node("nc1"), short_of_little = node("nc2"), closed_and_full = node("nc3"), dead = node("nc4");
  full.mem_usage_mib = 16'000;
  short_of_little.mem_usage_mib = 16'384 - 6000;
  closed_and_full.state = NodeState::no_new, closed_and_full.mem_usage_mib = 16'384 - 6100;
  dead.lost = true;
  const auto plan =
      decide(facts_of({dead, full, closed_and_full, short_of_little}, {}, ""), desktop(), PlacementLimits{});
  EXPECT_EQ(plan.node, "");
  EXPECT_EQ(plan.nearest_fix(), "nc2: free 144 MiB or ask for at most 3952 MiB");
  std::vector<std::string> order;
  for (const auto& one : plan.verdicts) order.push_back(one.facts.host);
  EXPECT_THAT(order, testing::ElementsAre("nc2", "nc1", "nc3", "nc4"));
  EXPECT_THAT(plan.verdicts[3].lacks, testing::ElementsAre(Resource::lease));
}

TEST(Planner, FollowsThePolicy) {
  // nc1 is empty, nc2 has two small VMs, nc3 one large one and the image.
  const std::vector<Reservation> held{
      {"nc2", "VD0000000a", 512, 1}, {"nc2", "VD0000000b", 512, 1}, {"nc3", "VD0000000c", 8192, 1}};
  auto with_image = node("nc3");
  with_image.has_image = true;
  const std::vector<NodeSnapshot> nodes{with_image, node("nc2"), node("nc1")};
  const auto ranked = [&](Policy policy) {
    PlacementLimits limits;
    limits.policy = policy;
    std::string out;
    const auto plan = clc::plan(nodes, held, desktop(), limits);
    for (const auto& one : plan->verdicts) out += one.facts.host + std::to_string(one.rank) + " ";
    return out;
  };
  EXPECT_EQ(ranked(Policy::image_first), "nc11 nc22 nc33 ");
  EXPECT_EQ(ranked(Policy::spread), "nc11 nc32 nc23 ");
  EXPECT_EQ(ranked(Policy::pack), "nc31 nc22 nc13 ");
  for (const char* name : {"image_first", "spread", "pack"}) EXPECT_EQ(to_string(*parse_policy(name)), name);
  EXPECT_THAT(parse_policy("best").error().message, HasSubstr("image_first, spread, pack"));
}

TEST(Planner, DoesNotCrowdTheNodeWithTheImage) {
  auto with_image = node("nc1");
  with_image.has_image = true;
  std::vector<Reservation> held;
  std::map<std::string, int> vms;
  for (int i = 0; i < 6; ++i) {
    auto request = desktop();
    request.memory_mib = 2048;
    const auto plan = clc::plan({with_image, node("nc2"), node("nc3")}, held, request, {});
    ASSERT_TRUE(plan) << plan.error().message;
    held.push_back({plan->node, "VD0000000" + std::to_string(i), 2048, 1});
    ++vms[plan->node];
  }
  EXPECT_THAT(
      vms, testing::ElementsAre(testing::Pair("nc1", 4), testing::Pair("nc2", 1), testing::Pair("nc3", 1)));
}

TEST(Planner, GivesNoNodeMoreVmsThanItHasPorts) {
  PlacementLimits limits;
  limits.max_seats = 2;
  const std::vector<Reservation> held{{"nc1", "VD0000000a", 1024, 1},
                                      {"nc1", "TMP0000000b", 0, 0, false}};  // stopped, its ports kept
  auto with_image = node("nc1");
  with_image.has_image = true;
  EXPECT_EQ(clc::plan({with_image, node("nc2")}, held, desktop(), limits)->node, "nc2");
  const auto plan = clc::plan({with_image}, held, desktop(), limits);
  ASSERT_FALSE(plan);
  EXPECT_THAT(plan.error().message,
              HasSubstr("ports: 2 VMs hold all 2 of its display or web ports -> stop 1 VM there or widen"));
  EXPECT_EQ(facts_of({with_image}, held, "").front().vms, 1);
}

TEST(Planner, LongRefusalsStayReadable) {
  std::vector<NodeSnapshot> many;
  for (int i = 0; i < 300; ++i) {
    many.push_back(node("nc" + std::to_string(i)));
    many.back().state = NodeState::no_new;
  }
  const auto plan = clc::plan(many, {}, desktop(), {});
  ASSERT_FALSE(plan);
  EXPECT_THAT(plan.error().message, HasSubstr("and 280 more"));
  EXPECT_LT(plan.error().message.size(), 2000u);
}

// What the planner says would help does help: done to the node, the VM fits. For every kind of shortage and
// all that stand together.
TEST(Planner, WhatItSaysWouldHelpHelps) {
  for (unsigned seed = 1; seed <= 500; ++seed) {
    std::mt19937 random(seed);
    const auto upto = [&](int most) { return static_cast<int>(random() % static_cast<unsigned>(most + 1)); };
    auto one = node("nc1");
    one.state = static_cast<NodeState>(upto(2));
    one.mem_mib = 1024 + upto(20'000);
    one.mem_usage_mib = upto(8000);
    one.disk_usage_mib = 170'000 + upto(30'000);
    one.cpu_usage = upto(100);
    one.cpus = 1 + upto(3);
    const std::vector<Reservation> held{{"nc1", "VD0000000a", upto(4000), upto(12)}};
    auto request = desktop();
    const PlacementLimits limits;
    const auto verdict = explain(facts_of({one}, held, "").front(), request, limits);
    auto mended = verdict.facts;
    const auto lack = shortage_of(mended, request, limits);
    mended.state = NodeState::enabled;
    mended.memory_left_mib += lack.memory_mib;
    mended.disk_left_mib += lack.disk_mib;
    mended.committed_cpus -= lack.cpus;
    mended.cpu_usage -= lack.load + 0.001;
    EXPECT_TRUE(shortage_of(mended, request, limits).none()) << "seed " << seed << " " << verdict.fix;
    EXPECT_EQ(verdict.fits, verdict.lacks.empty()) << "seed " << seed;
    EXPECT_EQ(verdict.fits, verdict.fix.empty()) << "seed " << seed;
  }
}

TEST(Planner, DecidesTheSameInWhateverOrderTheNodesCome) {
  for (unsigned seed = 1; seed <= 300; ++seed) {
    std::mt19937 random(seed);
    const auto upto = [&](int most) { return static_cast<int>(random() % static_cast<unsigned>(most + 1)); };
    std::vector<NodeSnapshot> nodes;
    std::vector<Reservation> held;
    for (int i = 0; i < 1 + upto(9); ++i) {
      auto one = node("nc" + std::to_string(i));
      one.mem_mib = 1024 * (4 + upto(8));
      one.has_image = upto(2) == 0;
      one.state = static_cast<NodeState>(upto(8) == 0 ? 1 : 0);
      if (upto(1) == 1) held.push_back({one.host, "VD" + std::to_string(i), 1024 * upto(4), upto(3)});
      nodes.push_back(one);
    }
    PlacementLimits limits;
    limits.policy = static_cast<Policy>(upto(2));
    const auto first = decide(facts_of(nodes, held, ""), desktop(), limits);
    std::shuffle(nodes.begin(), nodes.end(), random);
    std::shuffle(held.begin(), held.end(), random);
    const auto facts = facts_of(nodes, held, "");
    EXPECT_EQ(decide(facts, desktop(), limits).explain(), first.explain()) << "seed " << seed;
    const auto* chosen = choose(facts, desktop(), limits);
    EXPECT_EQ(chosen ? chosen->host : "", first.node) << "seed " << seed;
    EXPECT_EQ(first.verdicts.front().rank, chosen ? 1 : 0) << "seed " << seed;
  }
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
