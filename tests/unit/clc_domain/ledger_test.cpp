#include "clc/domain/ledger.hpp"

#include <gmock/gmock.h>

#include <random>

namespace educloud::clc {
namespace {

NodeFacts some_node(std::mt19937& random, int number) {
  const auto upto = [&](int most) { return static_cast<int>(random() % static_cast<unsigned>(most + 1)); };
  NodeFacts one;
  one.host = "nc" + std::to_string(number);
  one.cluster = "cc" + std::to_string(upto(2));
  one.state = static_cast<NodeState>(upto(9) == 0 ? 2 : 0);
  one.lost = upto(9) == 0;
  one.cluster_alive = upto(9) != 0;
  one.has_image = upto(1) == 1;
  one.age_ms = upto(16'000) - 1;
  one.cpus = upto(16);
  one.cpu_usage = upto(1000) / 10.0;
  one.mem_mib = upto(64'000);
  one.memory_left_mib = upto(64'000);
  one.disk_left_mib = upto(100'000);
  one.committed_mib = upto(10'000);
  one.committed_cpus = upto(20);
  one.vms = upto(10);
  return one;
}

Decision some_decision(unsigned seed, int nodes) {
  std::mt19937 random(seed);
  Decision out;
  out.imgid = "IMG00000001";
  out.version = 3;
  out.request.insid = "VD00000001";
  out.request.memory_mib = 4096;
  out.request.image_mib = 5000;
  if (seed % 3 == 0) out.request.cluster_pin = "cc1";
  out.limits.policy = static_cast<Policy>(seed % 3);
  std::vector<NodeFacts> all;
  for (int i = 0; i < nodes; ++i) all.push_back(some_node(random, i));
  set_nodes(out, std::move(all));
  return out;
}

TEST(Ledger, MakesTheSameDecisionAgain) {
  for (unsigned seed = 1; seed <= 200; ++seed) {
    auto decision = some_decision(seed, static_cast<int>(seed % 30));
    decision.request.disk_cluster = "cc1";
    const auto read = parse_decision(serialize(decision));
    EXPECT_EQ(read->request.disk_cluster, "cc1");
    ASSERT_TRUE(read) << read.error().message;
    EXPECT_EQ(read->nodes, decision.nodes) << "seed " << seed;
    EXPECT_EQ(decide(read->nodes, read->request, read->limits).explain(),
              decide(decision.nodes, decision.request, decision.limits).explain())
        << "seed " << seed;
    EXPECT_EQ(read->imgid, "IMG00000001");
    EXPECT_EQ(read->version, 3);
  }
}

TEST(Ledger, OfManyNodesKeepsTheChosenAndThoseThatSayMost) {
  for (unsigned seed = 1; seed <= 20; ++seed) {
    std::mt19937 random(seed);
    std::vector<NodeFacts> all;
    for (int i = 0; i < 1000; ++i) all.push_back(some_node(random, i));
    Decision decision = some_decision(seed, 0);
    const auto whole = decide(all, decision.request, decision.limits);
    set_nodes(decision, all);
    ASSERT_EQ(decision.nodes.size(), kLedgerNodes);
    EXPECT_EQ(decision.others, 800);
    const auto kept = decide(decision.nodes, decision.request, decision.limits);
    EXPECT_EQ(kept.node, whole.node) << "seed " << seed;
    for (std::size_t i = 0; i < kLedgerNodes; ++i)
      ASSERT_EQ(kept.verdicts[i].facts.host, whole.verdicts[i].facts.host) << "seed " << seed << " at " << i;
    EXPECT_LT(serialize(decision).size(), 200u * kLedgerNodes);
  }
}

TEST(Ledger, ADamagedRowIsAnError) {
  const auto good = serialize(some_decision(1, 2));
  for (const auto& bad : {std::string(), std::string("{}"), std::string("[]"),
                          good.substr(0, good.size() / 2), std::string(R"({"nodes":[[1]]})")}) {
    const auto read = parse_decision(bad);
    ASSERT_FALSE(read) << bad;
    EXPECT_EQ(read.error().code, ErrorCode::corrupt);
  }
}

}  // namespace
}  // namespace educloud::clc
