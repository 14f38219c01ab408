#include "cc/domain/fetch_queue.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

namespace educloud::cc {
namespace {

constexpr int kUser = 0, kPrefetch = 1, kReplication = 2;
const VersionKey kFirst{"IMG00000001", 1}, kSecond{"IMG00000002", 1};

ChunkKey key(int number) {
  ChunkKey out{};
  out[0] = static_cast<std::uint8_t>(number & 255);
  out[1] = static_cast<std::uint8_t>(number >> 8);
  out[31] = 1;
  return out;
}

/// Chunks `from` to `to`-1, at places 0, 1, ...
std::vector<FetchQueue::Wanted> chunks(int from, int to) {
  std::vector<FetchQueue::Wanted> out;
  for (int i = from; i < to; ++i) out.push_back({key(i), static_cast<std::uint32_t>(i - from)});
  return out;
}

std::vector<ChunkKey> keys(int from, int to) {
  std::vector<ChunkKey> out;
  for (int i = from; i < to; ++i) out.push_back(key(i));
  return out;
}

TEST(FetchQueue, AChunkIsAskedForOnceWhoeverWantsIt) {
  FetchQueue queue(100);
  queue.want(1, kUser, kFirst, chunks(0, 4));
  queue.want(2, kUser, kFirst, chunks(2, 6));
  const auto first = queue.take(100, kReplication);
  ASSERT_TRUE(first);
  EXPECT_EQ(first->keys, keys(0, 4));
  queue.want(3, kUser, kFirst, chunks(3, 4));  // under way already
  const auto second = queue.take(100, kReplication);
  ASSERT_TRUE(second);
  EXPECT_EQ(second->keys, keys(4, 6));
  EXPECT_FALSE(queue.take(100, kReplication));

  const auto wants = queue.arrived(key(3));
  std::set<std::pair<FetchQueue::Reader, std::uint32_t>> told;
  for (const auto& want : wants) told.insert({want.reader, want.index});
  EXPECT_EQ(told, (std::set<std::pair<FetchQueue::Reader, std::uint32_t>>{{1, 3}, {2, 1}, {3, 0}}));
  EXPECT_TRUE(queue.arrived(key(3)).empty());
}

TEST(FetchQueue, TheFirstBatchOfAReaderIsSmall) {
  FetchQueue queue(2);
  queue.want(1, kUser, kFirst, chunks(0, 10));
  EXPECT_EQ(queue.take(4, kReplication)->keys, keys(0, 2));
  EXPECT_EQ(queue.take(4, kReplication)->keys, keys(2, 6));
  EXPECT_EQ(queue.take(4, kReplication)->keys, keys(6, 10));
}

TEST(FetchQueue, UsersComeFirstAndOthersMayBeHeldBack) {
  FetchQueue queue(100);
  queue.want(1, kReplication, kFirst, chunks(0, 1));
  queue.want(2, kPrefetch, kFirst, chunks(10, 11));
  EXPECT_FALSE(queue.take(100, kUser));
  queue.want(3, kUser, kSecond, chunks(20, 21));
  EXPECT_EQ(queue.waiting(kUser), 1u);
  const auto user = queue.take(100, kReplication);
  EXPECT_EQ(user->keys, keys(20, 21));
  EXPECT_EQ(user->version, kSecond);
  EXPECT_EQ(queue.take(100, kReplication)->keys, keys(10, 11));
  EXPECT_EQ(queue.take(100, kReplication)->keys, keys(0, 1));
}

TEST(FetchQueue, AUserWhoWantsWhatIsPrefetchedMovesItForward) {
  FetchQueue queue(100);
  queue.want(1, kPrefetch, kFirst, chunks(0, 6));
  queue.want(2, kUser, kSecond, chunks(4, 6));
  const auto user = queue.take(100, kUser);
  ASSERT_TRUE(user);
  EXPECT_EQ(user->keys, keys(4, 6));
  EXPECT_EQ(queue.take(100, kReplication)->keys, keys(0, 4));
  EXPECT_EQ(queue.arrived(key(4)).size(), 2u);
}

TEST(FetchQueue, WhatFailedComesNextAndKeepsTheBestPriority) {
  FetchQueue queue(100);
  queue.want(1, kPrefetch, kFirst, chunks(0, 4));
  const auto batch = queue.take(2, kReplication);
  queue.want(2, kUser, kFirst, chunks(1, 2));
  queue.put_back(*batch, batch->keys);
  queue.done(*batch);
  EXPECT_EQ(queue.take(100, kReplication)->keys, keys(1, 2));
  EXPECT_EQ(queue.take(100, kReplication)->keys, keys(0, 1));
  EXPECT_EQ(queue.take(100, kReplication)->keys, keys(2, 4));
}

TEST(FetchQueue, WhatFailsForOneKeyIsNarrowedDownToIt) {
  FetchQueue queue(8);
  queue.want(1, kUser, kFirst, chunks(0, 8));
  int asked = 0;
  // Any request with chunk 5 in it fails as a whole.
  for (auto batch = queue.take(8, kUser); batch; batch = queue.take(8, kUser), ++asked) {
    ASSERT_LT(asked, 20);
    const bool bad = std::count(batch->keys.begin(), batch->keys.end(), key(5)) > 0;
    if (bad && batch->keys.size() > 1) {
      queue.put_back(*batch, batch->keys);
    } else {
      for (const auto& one : batch->keys) queue.arrived(one);
    }
    queue.done(*batch);
  }
  EXPECT_EQ(queue.size(), 0u);
}

TEST(FetchQueue, WhatNobodyWantsAnyMoreLeavesTheLine) {
  FetchQueue queue(100);
  queue.want(1, kUser, kFirst, chunks(0, 4));
  queue.want(2, kUser, kFirst, chunks(2, 6));
  queue.drop(1);
  EXPECT_EQ(queue.size(), 4u);
  EXPECT_EQ(queue.take(1, kUser)->keys, keys(2, 3));
  const auto batch = queue.take(1, kUser);
  EXPECT_EQ(batch->keys, keys(4, 5));  // the second reader's turn
  queue.drop(2);
  EXPECT_FALSE(queue.take(100, kReplication));
  EXPECT_EQ(queue.waiting(kUser), 0u);
  EXPECT_EQ(queue.size(), 2u);  // under way
  queue.put_back(*batch, batch->keys);
  EXPECT_FALSE(queue.take(100, kReplication));
  EXPECT_TRUE(queue.arrived(key(2)).empty());
  EXPECT_EQ(queue.size(), 0u);
}

TEST(FetchQueue, ReadersTakeTurns) {
  FetchQueue queue(2);
  for (FetchQueue::Reader reader = 1; reader <= 3; ++reader) {
    const int from = static_cast<int>(reader) * 100;
    queue.want(reader, kUser, kFirst, chunks(from, from + 10));
  }
  std::set<int> begun;
  for (int i = 0; i < 3; ++i) begun.insert(queue.take(2, kUser)->keys.front()[0] / 100);
  EXPECT_EQ(begun.size(), 3u) << "three connections serve three readers";
}

TEST(FetchQueue, AKeyTwiceInOneRequestIsToldTwice) {
  FetchQueue queue(10);
  const std::vector<FetchQueue::Wanted> twice{{key(1), 0}, {key(1), 1}};
  queue.want(1, kUser, kFirst, twice);
  EXPECT_EQ(queue.take(10, kUser)->keys, keys(1, 2));
  EXPECT_EQ(queue.arrived(key(1)).size(), 2u);
}

/// Whatever happens in whatever order: a chunk is under way at most once, and each reader that stays gets
/// each of its chunks exactly once.
TEST(FetchQueue, NothingIsLostOrDoubledInAnyOrder) {
  for (unsigned seed = 0; seed < 300; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    FetchQueue queue(1 + random() % 4);
    std::map<std::pair<FetchQueue::Reader, std::uint32_t>, int> owed;
    std::vector<FetchQueue::Batch> batches;
    std::set<ChunkKey> under_way;
    FetchQueue::Reader last = 0;
    const auto settle = [&](std::size_t which, bool good) {
      const auto batch = batches[which];
      batches.erase(batches.begin() + static_cast<std::ptrdiff_t>(which));
      const std::size_t come = good ? batch.keys.size() : random() % (batch.keys.size() + 1);
      for (std::size_t i = 0; i < batch.keys.size(); ++i) under_way.erase(batch.keys[i]);
      for (std::size_t i = 0; i < come; ++i) {
        for (const auto& want : queue.arrived(batch.keys[i])) --owed[{want.reader, want.index}];
      }
      queue.put_back(batch, std::span(batch.keys).subspan(come));
      queue.done(batch);
    };
    const auto take = [&] {
      auto batch = queue.take(1 + random() % 5, static_cast<int>(random() % 3));
      if (!batch) return;
      ASSERT_FALSE(batch->keys.empty());
      for (const auto& one : batch->keys) ASSERT_TRUE(under_way.insert(one).second);
      batches.push_back(*batch);
    };
    for (int step = 0; step < 200; ++step) {
      const unsigned what = random() % 10;
      if (what < 3) {
        const int from = static_cast<int>(random() % 30);
        const auto wanted = chunks(from, from + 1 + static_cast<int>(random() % 12));
        queue.want(++last, static_cast<int>(random() % 3), kFirst, wanted);
        for (const auto& one : wanted) owed[{last, one.index}] = 1;
      } else if (what == 3 && last > 0) {
        const FetchQueue::Reader gone = 1 + random() % last;
        queue.drop(gone);
        std::erase_if(owed, [&](const auto& one) { return one.first.first == gone; });
      } else if (what < 7) {
        take();
      } else if (!batches.empty()) {
        settle(random() % batches.size(), random() % 3 != 0);
      }
    }
    while (queue.size() > 0 || !batches.empty()) {
      while (auto batch = queue.take(5, kReplication)) {
        for (const auto& one : batch->keys) ASSERT_TRUE(under_way.insert(one).second);
        batches.push_back(*batch);
      }
      ASSERT_FALSE(batches.empty());
      settle(0, true);
    }
    for (const auto& [want, times] : owed) EXPECT_EQ(times, 0) << "reader " << want.first;
    for (int priority = 0; priority < FetchQueue::kPriorities; ++priority) {
      EXPECT_EQ(queue.waiting(priority), 0u);
    }
  }
}

}  // namespace
}  // namespace educloud::cc
