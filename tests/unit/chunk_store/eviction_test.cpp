#include "store_support.hpp"

namespace educloud::chunk {
namespace {

/// A cache of 16 packs of 24 chunks each.
class Eviction : public StoreFixture {
 protected:
  static constexpr std::uint64_t kPackBytes = 24 * (4096 + kFrameHeaderBytes);
  static constexpr std::uint64_t kMaxBytes = 16 * kPackBytes;
  static constexpr ChunkStore::Options kCache{.durable = false, .max_bytes = kMaxBytes, .commit_every = 32};

  Eviction() { reopen(kCache); }

  std::uint64_t pack_files() {
    std::uint64_t sum = 0;
    for (const auto& entry : std::filesystem::directory_iterator(dir_ / "chunks" / "packs")) {
      sum += entry.file_size();
    }
    return sum;
  }
};

TEST_F(Eviction, TheOldestGoFirst) {
  put_all(1, 2000);
  EXPECT_LE(pack_files(), kMaxBytes);
  EXPECT_GT(pack_files(), kMaxBytes * 3 / 4);
  EXPECT_FALSE(has(1));
  EXPECT_FALSE(has(1600));
  EXPECT_TRUE(has(2000));
  EXPECT_TRUE(has(1700));
  ASSERT_TRUE(store_->flush());
  EXPECT_EQ(store_->stats()->chunks, pack_files() / (4096 + kFrameHeaderBytes));
  EXPECT_TRUE(verify(*store_).empty());
  put_all(1, 1);
  EXPECT_EQ(read(1), content(1));
}

TEST_F(Eviction, WhatIsUsedStays) {
  for (std::uint64_t number = 1; number <= 2000; ++number) {
    put_all(number, number);
    ASSERT_TRUE(has(1)) << number;
  }
  EXPECT_FALSE(has(30));
}

TEST_F(Eviction, UseIsRememberedOverARestart) {
  put_all(1, 300);
  EXPECT_TRUE(has(1));
  reopen(kCache);
  put_all(301, 450);
  EXPECT_TRUE(has(1));
  EXPECT_FALSE(has(30));
}

TEST_F(Eviction, WhatIsHeldStays) {
  put_all(1, 100);
  auto held = find_one(*store_, id_of(1));
  put_all(101, 2000);
  EXPECT_EQ(read(*held), content(1));
  EXPECT_EQ(read(2), content(2)) << "its whole pack stays";
  held.reset();
  put_all(2001, 4000);
  EXPECT_FALSE(has(1));
}

TEST_F(Eviction, IsExhaustedIfAllIsHeld) {
  std::vector<FrameSlice> held;
  Result<> done;
  std::uint64_t number = 1;
  for (; done && number < 2000; ++number) {
    done = put(*store_, number);
    if (done) held.push_back(*find_one(*store_, id_of(number)));
  }
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, ErrorCode::exhausted);
  for (std::size_t i = 0; i < held.size(); ++i) ASSERT_EQ(read(held[i]), content(i + 1));
  held.clear();
  EXPECT_TRUE(put(*store_, number));
  EXPECT_TRUE(has(number));
}

TEST_F(Eviction, ASmallerLimitAppliesToWhatIsThere) {
  put_all(1, 380);
  auto smaller = kCache;
  smaller.max_bytes = kMaxBytes / 2;
  reopen(smaller);
  put_all(1000, 1000);
  EXPECT_LE(pack_files(), smaller.max_bytes);
  EXPECT_FALSE(has(1));
  EXPECT_TRUE(has(1000));
}

TEST_F(Eviction, ChunksThatAreNotCommittedYetGoToo) {
  auto lazy = kCache;
  lazy.commit_every = 100'000;
  reopen(lazy);
  put_all(1, 1000);
  EXPECT_FALSE(has(1));
  EXPECT_TRUE(has(1000));
  reopen(lazy);
  EXPECT_FALSE(has(1));
  EXPECT_EQ(read(1000), content(1000));
  EXPECT_TRUE(verify(*store_).empty());
}

}  // namespace
}  // namespace educloud::chunk
