#include <gtest/gtest.h>

#include <numeric>

#include "nc/cache/peer_set.hpp"
#include "nc/cache/work_queue.hpp"

namespace educloud::nc {
namespace {

using namespace std::chrono_literals;

std::vector<std::uint64_t> chunks(std::uint64_t first, std::uint64_t count) {
  std::vector<std::uint64_t> out(count);
  std::iota(out.begin(), out.end(), first);
  return out;
}

class Queue : public ::testing::Test {
 protected:
  WorkQueue::Time now_ = WorkQueue::Clock::now();
  WorkQueue queue_{64, "nc1"};
};

TEST_F(Queue, GivesEachChunkOnceInOrder) {
  queue_.need(chunks(10, 1000), now_);
  EXPECT_EQ(queue_.left(), 1000U);
  std::vector<std::uint64_t> all;
  while (auto unit = queue_.take(WorkQueue::kCc, 64, now_)) {
    EXPECT_LE(unit->chunks.size(), 64U);
    all.insert(all.end(), unit->chunks.begin(), unit->chunks.end());
    queue_.written(unit->chunks);
    queue_.close(*unit, now_);
  }
  EXPECT_EQ(all, chunks(10, 1000));
  EXPECT_EQ(queue_.left(), 0U);
}

TEST_F(Queue, WhatDidNotComeIsOfferedAgain) {
  queue_.need(chunks(0, 64), now_);
  auto unit = queue_.take(WorkQueue::kCc, 64, now_);
  ASSERT_TRUE(unit);
  EXPECT_FALSE(queue_.take(WorkQueue::kCc, 64, now_));
  queue_.written(chunks(0, 10));
  queue_.close(*unit, now_);
  unit = queue_.take(WorkQueue::kCc, 64, now_);
  ASSERT_TRUE(unit);
  EXPECT_EQ(unit->chunks, chunks(10, 54));
}

TEST_F(Queue, SparseGroupsAreTakenTogether) {
  std::vector<std::uint64_t> few;
  for (std::uint64_t group = 0; group < 64; ++group) few.push_back(group * 64 + 7);
  queue_.need(few, now_);
  EXPECT_EQ(queue_.take(WorkQueue::kCc, 256, now_)->chunks.size(), 8U);
}

TEST_F(Queue, HomesDecideWhoIsAsked) {
  queue_.need(chunks(0, 64 * 64), now_);
  queue_.set_peers({"nc2"}, now_);
  const std::vector<std::string> nodes{"nc1", "nc2"};
  std::size_t from_peer = 0;
  while (auto unit = queue_.take("nc2", 64, now_)) {
    for (const auto at : unit->chunks) EXPECT_EQ(home_of(nodes, static_cast<std::uint32_t>(at / 64)), "nc2");
    from_peer += unit->chunks.size();
  }
  EXPECT_GT(from_peer, 1000U);
  EXPECT_LT(from_peer, 3000U);
  std::size_t from_cc = 0;
  while (auto unit = queue_.take(WorkQueue::kCc, 64, now_)) {
    EXPECT_TRUE(queue_.is_home(unit->chunks[0]));
    from_cc += unit->chunks.size();
  }
  EXPECT_EQ(from_peer + from_cc, 64U * 64);
}

TEST_F(Queue, WorkOfADroppedPeerGoesToTheCc) {
  queue_.need(chunks(0, 64 * 64), now_);
  queue_.set_peers({"nc2"}, now_);
  auto flying = queue_.take("nc2", 64, now_);
  ASSERT_TRUE(flying);
  queue_.set_peers({}, now_);
  queue_.close(*flying, now_);
  std::size_t from_cc = 0;
  while (auto unit = queue_.take(WorkQueue::kCc, 64, now_)) from_cc += unit->chunks.size();
  EXPECT_EQ(from_cc, 64U * 64);
}

TEST_F(Queue, SomebodyWhoWaitsComesFirst) {
  queue_.need(chunks(0, 64 * 64), now_);
  EXPECT_FALSE(queue_.take_urgent(now_));
  queue_.urge(1000, false);
  queue_.urge(1000, false);
  EXPECT_TRUE(queue_.has_urgent());
  const auto unit = queue_.take_urgent(now_);
  ASSERT_TRUE(unit);
  EXPECT_EQ(unit->chunks, chunks(1000, 16));
  EXPECT_FALSE(queue_.take_urgent(now_));
  // Being fetched already: only if it takes too long.
  queue_.urge(1001, false);
  EXPECT_FALSE(queue_.take_urgent(now_));
  queue_.urge(1001, true);
  EXPECT_EQ(queue_.take_urgent(now_)->chunks[0], 1001U);
}

TEST_F(Queue, ANeighboursWishMovesToTheFront) {
  queue_.need(chunks(0, 64 * 64), now_);
  queue_.to_front(20 * 64 + 3);
  EXPECT_EQ(queue_.take(WorkQueue::kCc, 64, now_)->chunks[0], 20U * 64);
  EXPECT_EQ(queue_.take(WorkQueue::kCc, 64, now_)->chunks[0], 0U);
}

TEST_F(Queue, IdleWorkersHelpSlowNeighboursOnly) {
  queue_.need(chunks(0, 64 * 64), now_);
  queue_.set_peers({"nc2"}, now_);
  while (auto unit = queue_.take(WorkQueue::kCc, 64, now_)) {
    queue_.written(unit->chunks);
    queue_.close(*unit, now_);
  }
  auto flying = queue_.take("nc2", 64, now_);
  ASSERT_TRUE(flying);
  flying->beat(now_);
  EXPECT_FALSE(queue_.steal(now_ + 1500ms));
  auto stolen = queue_.steal(now_ + 2200ms);
  ASSERT_TRUE(stolen);
  EXPECT_EQ(stolen->source, WorkQueue::kCc);
  while (auto more = queue_.steal(now_ + 2200ms)) {
    queue_.written(more->chunks);
    queue_.close(*more, now_);
  }
  // What the silent one holds is fetched a second time, not a third.
  const auto twice = queue_.steal(now_ + 4000ms);
  ASSERT_TRUE(twice);
  const auto again = queue_.steal(now_ + 4000ms);
  EXPECT_TRUE(!again || again->chunks != twice->chunks);
}

TEST_F(Queue, APausedPeerIsLeftAlone) {
  queue_.need(chunks(0, 64 * 64), now_);
  queue_.set_peers({"nc2"}, now_);
  EXPECT_EQ(queue_.busiest_peer(2, now_), "nc2");
  queue_.pause("nc2", now_ + 200ms);
  EXPECT_FALSE(queue_.busiest_peer(2, now_));
  EXPECT_FALSE(queue_.take("nc2", 64, now_));
  EXPECT_TRUE(queue_.take("nc2", 64, now_ + 300ms));
}

}  // namespace
}  // namespace educloud::nc
