#include "clc/domain/lesson.hpp"

#include <gmock/gmock.h>

#include <random>

namespace educloud::clc {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

NodeFacts node(std::string host, std::int64_t memory_left_mib = 16'384) {
  NodeFacts one;
  one.host = std::move(host);
  one.cluster = "cc1";
  one.age_ms = 1000;
  one.cpus = 8;
  one.mem_mib = 16'384;
  one.memory_left_mib = memory_left_mib;
  one.disk_left_mib = 100'000;
  return one;
}

PlacementRequest desktop(std::int64_t memory_mib = 4096) {
  PlacementRequest request;
  request.memory_mib = memory_mib;
  request.image_mib = 5000;
  return request;
}

/// "nc1 3, nc2 2" of those that get any.
std::string seats(const Seating& seating) {
  std::string out;
  for (const auto& one : seating.shares) {
    if (one.vms > 0) out += (out.empty() ? "" : ", ") + one.facts.host + " " + std::to_string(one.vms);
  }
  return out;
}

TEST(Lesson, FindsRoomForAllOrSaysHowManyAreLeftOver) {
  const std::vector<NodeFacts> nodes{node("nc2"), node("nc1")};
  EXPECT_EQ(seats(place_many(nodes, desktop(), {}, 5)), "nc1 3, nc2 2");
  const auto all = place_many(nodes, desktop(), {}, 6);
  EXPECT_EQ(all.missing, 0);
  EXPECT_FALSE(bottleneck_of(all, desktop(), {}).has_value());
  const auto more = place_many(nodes, desktop(), {}, 10);
  EXPECT_EQ(more.placed, 6);
  EXPECT_EQ(more.missing, 4);
  EXPECT_EQ(more.shares[0].fetch_mib, 5000);
}

TEST(Lesson, FollowsThePolicy) {
  auto busy = node("nc1", 12'000);
  busy.vms = 1;
  PlacementLimits limits;
  limits.policy = Policy::pack;
  EXPECT_EQ(seats(place_many({node("nc2"), busy}, desktop(2048), limits, 4)), "nc1 4");
  limits.policy = Policy::spread;
  EXPECT_EQ(seats(place_many({node("nc2"), busy}, desktop(2048), limits, 4)), "nc1 1, nc2 3");
}

TEST(Lesson, NamesWhatIsShortWhereByHowMuchAndWhatHelps) {
  auto closed = node("nc3");
  closed.state = NodeState::no_new;
  const std::vector<NodeFacts> nodes{node("nc1"), node("nc2", 7000), closed};
  const auto seating = place_many(nodes, desktop(), {}, 10);
  EXPECT_EQ(seating.placed, 4);
  const auto short_of = bottleneck_of(seating, desktop(), {});
  ASSERT_TRUE(short_of);
  EXPECT_EQ(short_of->resource, Resource::memory);
  EXPECT_THAT(short_of->nodes, ElementsAre("nc1", "nc2"));
  EXPECT_EQ(short_of->short_by, 6 * 4096);
  EXPECT_THAT(short_of->text, HasSubstr("6 of 10 find no place: memory, 24576 MiB short (4096 each) on nc1"));
  EXPECT_EQ(short_of->remedy, "nc3: educloud node enable nc3") << "that one has room";
  const auto smaller = short_of->memory_mib_that_fits;
  EXPECT_GT(smaller, 0);
  EXPECT_EQ(place_many(nodes, desktop(smaller), {}, 10).missing, 0);
  EXPECT_GT(place_many(nodes, desktop(smaller + 64), {}, 10).missing, 0);
}

TEST(Lesson, SaysWhenNoNodeMayBeUsedAtAll) {
  auto lost = node("nc1"), closed = node("nc2"), closed_too = node("nc3");
  lost.lost = true;
  closed.state = NodeState::no_new, closed_too.state = NodeState::drained;
  const auto seating = place_many({lost, closed, closed_too}, desktop(), {}, 1);
  const auto short_of = bottleneck_of(seating, desktop(), {});
  EXPECT_EQ(short_of->resource, Resource::state);
  EXPECT_THAT(short_of->nodes, ElementsAre("nc2", "nc3"));
  EXPECT_EQ(bottleneck_of(place_many({}, desktop(), {}, 1), desktop(), {})->text,
            "no node is registered; add one with educloud init");
  auto pinned = desktop();
  pinned.cluster_pin = "cc9";
  EXPECT_EQ(bottleneck_of(place_many({node("nc1")}, pinned, {}, 1), pinned, {})->resource, Resource::pin);
}

TEST(Lesson, ReckonsTheTimeFromWhatWasMeasured) {
  auto has_it = node("nc1"), lacks_it = node("nc2");
  has_it.has_image = true;
  lacks_it.cluster = "cc2";
  const BootGate gate{2, 30'000};
  const auto seating = place_many({has_it, lacks_it}, desktop(), {}, 6);
  ASSERT_EQ(seats(seating), "nc1 3, nc2 3");
  auto guess = estimate_of(seating, 10'000'000'000, gate, {});
  EXPECT_EQ(guess.fetch_s, 80) << "1 Gbit/s";
  EXPECT_FALSE(guess.fetch_measured);
  EXPECT_EQ(guess.waves, 2);
  EXPECT_EQ(guess.boot_s, 60);
  EXPECT_EQ(guess.total_s, 140);
  Pace pace{{{"cc2", 50'000'000}}, 12'000};
  guess = estimate_of(seating, 10'000'000'000, gate, pace);
  EXPECT_EQ(guess.fetch_s, 200);
  EXPECT_TRUE(guess.fetch_measured);
  EXPECT_EQ(guess.boot_s, 24);
  pace.boot_ms = 100'000;
  EXPECT_EQ(estimate_of(seating, 0, gate, pace).boot_s, 130) << "a slow boot loses its slot";
  EXPECT_EQ(estimate_of(place_many({}, desktop(), {}, 3), 1, gate, pace).total_s, 0);
}

struct World {
  std::vector<NodeFacts> nodes;
  PlacementRequest request;
  PlacementLimits limits;
};

World world_of(unsigned seed) {
  std::mt19937 random(seed);
  const auto upto = [&](int most) { return static_cast<int>(random() % static_cast<unsigned>(most + 1)); };
  World out;
  for (int i = 0; i < upto(8); ++i) {
    auto one = node("nc" + std::to_string(i), upto(40'000));
    one.mem_mib = one.memory_left_mib + upto(4000);
    one.cpus = 1 + upto(15);
    one.committed_cpus = upto(8);
    one.cpu_usage = upto(90);
    one.disk_left_mib = upto(30'000);
    one.has_image = upto(1) == 1;
    one.vms = upto(5);
    one.state = upto(5) == 0 ? NodeState::no_new : NodeState::enabled;
    one.lost = upto(9) == 0;
    one.cluster = upto(2) == 0 ? "cc2" : "cc1";
    out.nodes.push_back(one);
  }
  out.request = desktop(64 + upto(8000));
  out.request.cpus = 1 + upto(3);
  if (upto(4) == 0) out.request.cluster_pin = "cc1";
  out.limits.policy = static_cast<Policy>(upto(2));
  out.limits.cpu_overcommit = 0.5 + upto(7);
  return out;
}

TEST(LessonProperty, NeverMoreThanANodeHasAndNeverLessThanAllTogetherCan) {
  for (unsigned seed = 1; seed <= 400; ++seed) {
    const auto w = world_of(seed);
    const auto seating = place_many(w.nodes, w.request, w.limits, 200);
    std::int64_t capacity = 0;
    for (const auto& share : seating.shares) {
      const auto room = capacity_of(share.facts, w.request, w.limits);
      capacity += room;
      EXPECT_LE(share.vms, room) << "seed " << seed;
      EXPECT_LE(share.vms * w.request.memory_mib + (share.vms > 0 ? w.limits.reserve_mib : 0),
                std::max<std::int64_t>(share.facts.memory_left_mib, 0))
          << "seed " << seed;
      EXPECT_LE(share.vms * w.request.cpus,
                std::max(0.0, share.facts.cpus * w.limits.cpu_overcommit - share.facts.committed_cpus))
          << "seed " << seed;
    }
    EXPECT_EQ(seating.placed, std::min<std::int64_t>(200, capacity)) << "seed " << seed;
    EXPECT_EQ(seating.placed + seating.missing, 200) << "seed " << seed;
    const auto short_of = bottleneck_of(seating, w.request, w.limits);
    EXPECT_EQ(short_of.has_value(), seating.missing > 0) << "seed " << seed;
    EXPECT_EQ(short_of && short_of->text.empty(), false) << "seed " << seed;
  }
}

TEST(LessonProperty, IsTheSameWhateverTheOrderAndGrowsWithTheCount) {
  for (unsigned seed = 1; seed <= 200; ++seed) {
    auto w = world_of(seed);
    std::vector<int> before;
    for (int count : {1, 2, 3, 7, 20, 60}) {
      const auto seating = place_many(w.nodes, w.request, w.limits, count);
      auto shuffled = w.nodes;
      std::shuffle(shuffled.begin(), shuffled.end(), std::mt19937(seed));
      EXPECT_EQ(seats(place_many(shuffled, w.request, w.limits, count)), seats(seating)) << "seed " << seed;
      std::vector<int> now;
      for (const auto& one : seating.shares) now.push_back(one.vms);
      for (std::size_t i = 0; i < before.size(); ++i) EXPECT_GE(now[i], before[i]) << "seed " << seed;
      before = now;
    }
  }
}

// A dry run says what starting them one after the other would do.
TEST(LessonProperty, IsWhatStartingThemOneByOneDoes) {
  for (unsigned seed = 1; seed <= 200; ++seed) {
    const auto w = world_of(seed);
    auto nodes = w.nodes;
    std::map<std::string, int> started;
    int placed = 0;
    for (; placed < 30; ++placed) {
      const auto* chosen = choose(nodes, w.request, w.limits);
      if (!chosen) break;
      auto& one = *std::find_if(nodes.begin(), nodes.end(), [&](auto& n) { return n.host == chosen->host; });
      one.memory_left_mib -= w.request.memory_mib;
      one.committed_cpus += w.request.cpus;
      ++one.vms;
      ++started[one.host];
    }
    const auto seating = place_many(w.nodes, w.request, w.limits, 30);
    EXPECT_EQ(seating.placed, placed) << "seed " << seed;
    for (const auto& share : seating.shares)
      EXPECT_EQ(share.vms, started[share.facts.host]) << "seed " << seed;
  }
}

}  // namespace
}  // namespace educloud::clc
