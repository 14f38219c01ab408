#include <gtest/gtest.h>

#include "nc/cache/chunk_index.hpp"
#include "nc/cache/fill_plan.hpp"

namespace educloud::nc {
namespace {

using chunk::ChunkId;
using chunk::DiskMap;

ChunkId id(int number) {
  return ChunkId::of(std::to_string(number));
}
DiskMap map_of(std::uint64_t chunks, const std::map<std::uint64_t, int>& content) {
  DiskMap map(chunks * chunk::kChunkBytes);
  for (const auto& [at, number] : content) map.set(at, id(number));
  return map;
}

TEST(FillPlan, WithoutABaseEverythingIsFetchedOnce) {
  const auto plan =
      make_plan(map_of(200, {{0, 1}, {5, 2}, {6, 1}, {130, 3}, {199, 1}}), nullptr, TargetKind::sparse);
  EXPECT_EQ(plan.data, (std::vector<std::uint64_t>{0, 5, 6, 130, 199}));
  EXPECT_EQ(plan.fetch, (std::vector<std::uint64_t>{0, 5, 130}));
  ASSERT_EQ(plan.repeats.size(), 2U);
  EXPECT_EQ(plan.repeats[0].chunk, 6U);
  EXPECT_EQ(plan.repeats[1].chunk, 199U);
  EXPECT_EQ(plan.repeats[1].of, 0U);
  EXPECT_EQ(plan.fetch_bytes, 3 * chunk::kChunkBytes);
  EXPECT_TRUE(plan.zeros.empty());
}

TEST(FillPlan, ADeltaHoldsChangesAndNewHoles) {
  const auto base = map_of(100, {{0, 1}, {1, 2}, {2, 3}, {70, 4}});
  const auto wanted = map_of(100, {{0, 1}, {1, 9}, {3, 4}, {70, 4}});
  const auto plan = make_plan(wanted, &base, TargetKind::delta);
  EXPECT_EQ(plan.data, (std::vector<std::uint64_t>{1, 3}));
  EXPECT_EQ(plan.zeros, (std::vector<std::uint64_t>{2}));
  EXPECT_EQ(plan.fetch, (std::vector<std::uint64_t>{1}));
  ASSERT_EQ(plan.copies.size(), 1U);  // moved content is copied
  EXPECT_EQ(plan.copies[0].chunk, 3U);
  EXPECT_EQ(plan.copies[0].from, 70U);
}

TEST(FillPlan, ASparseFileCopiesWhatTheBaseHas) {
  const auto base = map_of(100, {{0, 1}, {1, 2}});
  const auto plan = make_plan(map_of(100, {{0, 1}, {1, 9}}), &base, TargetKind::sparse);
  EXPECT_EQ(plan.data, (std::vector<std::uint64_t>{0, 1}));
  EXPECT_EQ(plan.fetch, (std::vector<std::uint64_t>{1}));
  EXPECT_EQ(plan.copies.size(), 1U);
}

TEST(FillPlan, AShorterDiskLeavesTheBasesEndOut) {
  const auto base = map_of(100, {{0, 1}, {99, 2}});
  const auto plan = make_plan(map_of(50, {{0, 1}}), &base, TargetKind::clone);
  EXPECT_TRUE(plan.data.empty());
  EXPECT_TRUE(plan.zeros.empty());
}

TEST(FillPlan, FingerprintsTellPlansApart) {
  const auto base = map_of(100, {{0, 1}});
  const auto wanted = map_of(100, {{0, 2}, {1, 3}});
  const auto a = make_plan(wanted, &base, TargetKind::delta);
  EXPECT_EQ(a.fingerprint(), make_plan(wanted, &base, TargetKind::delta).fingerprint());
  EXPECT_NE(a.fingerprint(), make_plan(wanted, &base, TargetKind::clone).fingerprint());
  EXPECT_NE(a.fingerprint(),
            make_plan(map_of(100, {{0, 2}, {2, 3}}), &base, TargetKind::delta).fingerprint());
}

TEST(FillPlan, TheKindFollowsFromBaseAndChange) {
  const auto base_map = map_of(100, {{0, 1}, {1, 2}, {2, 3}});
  const auto small = map_of(100, {{0, 1}, {1, 2}, {2, 9}});
  const auto large = map_of(100, {{0, 1}, {1, 8}, {2, 9}});
  BaseVersion base{"IMG00000001", 1, "", "raw", 1};
  EXPECT_EQ(choose_kind(small, base, base_map, true), TargetKind::clone);
  EXPECT_EQ(choose_kind(small, base, base_map, false), TargetKind::delta);
  EXPECT_EQ(choose_kind(large, base, base_map, false), TargetKind::sparse);
  base.format = "qcow2";
  EXPECT_EQ(choose_kind(small, base, base_map, true), TargetKind::delta);
  base.layers = kMaxChain;
  EXPECT_EQ(choose_kind(small, base, base_map, true), TargetKind::sparse);
}

TEST(FillPlan, GroupsInCommonLooksAtPlaceAndContent) {
  const auto a = map_of(300, {{0, 1}, {64, 2}, {200, 3}}).manifest();
  const auto b = map_of(300, {{0, 1}, {64, 9}, {150, 3}, {200, 3}}).manifest();
  EXPECT_EQ(groups_in_common(a, b), 2U);
  EXPECT_EQ(groups_in_common(a, {}), 0U);
}

TEST(ChunkIndex, FindsTheFirstPlaceOfContent) {
  const auto map = map_of(500, {{3, 1}, {400, 1}, {64, 2}});
  const ChunkIndex index(map);
  EXPECT_EQ(index.find(map, id(1)), 3U);
  EXPECT_EQ(index.find(map, id(2)), 64U);
  EXPECT_EQ(index.find(map, id(3)), std::nullopt);
  EXPECT_EQ(index.find(map, ChunkId{}), std::nullopt);
}

}  // namespace
}  // namespace educloud::nc
