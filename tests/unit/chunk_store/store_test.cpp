// What a store keeps and tells; crashes, eviction, sweeps and damage have their own files.
#include <atomic>
#include <thread>

#include "store_support.hpp"

namespace educloud::chunk {
namespace {

class Store : public StoreFixture {
 protected:
  Store() { reopen(); }
};

TEST_F(Store, WhatWasPutIsThereAtOnce) {
  put_all(1, 10);
  for (std::uint64_t number = 1; number <= 10; ++number) EXPECT_EQ(read(number), content(number));
  EXPECT_FALSE(has(11));
  EXPECT_EQ(store_->missing(ids_of(9, 12), false).value(), (std::vector{false, false, true, true}));
  EXPECT_EQ(store_->missing({}, false)->size(), 0U);
  EXPECT_FALSE(find_one(*store_, ChunkId{})) << "a hole is no chunk";
}

TEST_F(Store, SlicesAreWholeFramesInTheOrderOfPut) {
  put_all(1, 3);
  const auto ids = ids_of(1, 3);
  const auto slices = store_->find(ids).value();
  std::uint64_t offset = 0;
  for (std::size_t i = 0; i < 3; ++i) {
    ASSERT_TRUE(slices[i]);
    EXPECT_EQ(slices[i]->offset, offset);
    EXPECT_EQ(slices[i]->raw_bytes, 4096U);
    const auto frame = load(*slices[i]).value();
    EXPECT_EQ(frame.header.id, ids[i]);
    EXPECT_EQ(slices[i]->length, frame.header.frame_bytes());
    offset += slices[i]->length;
  }
}

TEST_F(Store, FlushedChunksSurviveAReopen) {
  put_all(1, 1000);  // crosses a commit
  ASSERT_TRUE(store_->flush());
  reopen();
  for (std::uint64_t number = 1; number <= 1000; ++number) ASSERT_EQ(read(number), content(number));
  put_all(1001, 1005);
  reopen();  // closing flushes
  EXPECT_EQ(read(1005), content(1005));
  EXPECT_EQ(read(1), content(1));
}

TEST_F(Store, ASecondPutWritesNothing) {
  put_all(1, 5);
  const auto before = store_->stats().value();
  put_all(1, 5);
  ASSERT_TRUE(store_->flush());
  put_all(1, 5);
  ASSERT_TRUE(store_->flush());
  const auto after = store_->stats().value();
  EXPECT_EQ(after.chunks, 5U);
  EXPECT_EQ(after.stored_bytes, before.stored_bytes);
  EXPECT_EQ(std::filesystem::file_size(dir_ / "chunks" / "packs" / "1.pack"), after.stored_bytes);
}

TEST_F(Store, CountsWhatItHolds) {
  put_all(1, 4);
  ASSERT_TRUE(put(*store_, 5, 65536));
  ASSERT_TRUE(put(*store_, 6, 8));
  for (int round = 0; round < 2; ++round) {
    const auto stats = store_->stats().value();
    EXPECT_EQ(stats.chunks, 6U);
    EXPECT_EQ(stats.raw_bytes, 4U * 4096 + 65536 + 8);
    EXPECT_EQ(stats.stored_bytes, stats.raw_bytes + 6 * kFrameHeaderBytes);
    EXPECT_GE(stats.disk_bytes, stats.stored_bytes);
    reopen();
  }
}

TEST_F(Store, FillsPackAfterPack) {
  reopen({.pack_bytes = 100'000});
  put_all(1, 100);
  EXPECT_TRUE(std::filesystem::exists(dir_ / "chunks" / "packs" / "4.pack"));
  reopen({.pack_bytes = 100'000});
  put_all(101, 200);
  for (std::uint64_t number = 1; number <= 200; ++number) ASSERT_EQ(read(number), content(number));
  EXPECT_TRUE(verify(*store_).empty());
}

TEST_F(Store, KeepsManyPacksWithFewOpenFiles) {
  reopen({.pack_bytes = 1});  // 64 KiB and a header at least: 15 chunks each
  put_all(1, 4000);
  std::vector<FrameSlice> held;
  for (std::uint64_t number = 1; number <= 4000; number += 7) {
    held.push_back(*find_one(*store_, id_of(number)));
    if (held.size() > 20) held.erase(held.begin());
    ASSERT_EQ(read(held.back()), content(number));
  }
  std::size_t open = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) ++open;
  EXPECT_LT(open, 220U);
  put_all(4001, 4010);
  EXPECT_EQ(read(4010), content(4010));
}

TEST_F(Store, ForgottenChunksCanBePutAgain) {
  put_all(1, 3);
  ASSERT_TRUE(store_->forget(id_of(1)));  // not committed yet
  ASSERT_TRUE(store_->flush());
  ASSERT_TRUE(store_->forget(id_of(2)));
  ASSERT_TRUE(store_->forget(id_of(99)));
  EXPECT_FALSE(has(1));
  EXPECT_FALSE(has(2));
  EXPECT_TRUE(has(3));
  EXPECT_EQ(store_->stats()->chunks, 1U);
  put_all(1, 2);
  reopen();
  for (std::uint64_t number = 1; number <= 3; ++number) EXPECT_EQ(read(number), content(number));
  EXPECT_EQ(store_->stats()->chunks, 3U);
}

TEST_F(Store, RefusesWhatIsNoFrame) {
  FrameEncoder encoder;
  std::string frame;
  const auto header = encoder.append(content(1), frame).value();
  const auto stored = std::span<const char>(frame).subspan(kFrameHeaderBytes);
  const auto code = [&](const FrameHeader& wrong, std::span<const char> bytes) {
    const auto done = store_->put(wrong, bytes);
    return done ? ErrorCode::internal : done.error().code;
  };
  EXPECT_EQ(code(header, stored.first(10)), ErrorCode::invalid_argument);
  auto wrong = header;
  wrong.id = {};
  EXPECT_EQ(code(wrong, stored), ErrorCode::invalid_argument);
  wrong = header;
  wrong.raw_bytes = kChunkBytes + 1;
  EXPECT_EQ(code(wrong, stored), ErrorCode::invalid_argument);
  EXPECT_EQ(store_->stats()->chunks, 0U);
}

TEST_F(Store, HasOneOwnerAndManyReaders) {
  put_all(1, 3);
  ASSERT_TRUE(store_->flush());
  const auto second = ChunkStore::open(dir_ / "chunks", {});
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::conflict);
  auto reader = ChunkStore::open_read_only(dir_ / "chunks").value();
  EXPECT_EQ(read(*reader, id_of(2)), content(2));
  put_all(4, 6);
  EXPECT_FALSE(find_one(*reader, id_of(5)));
  ASSERT_TRUE(store_->flush());
  EXPECT_EQ(read(*reader, id_of(5)), content(5));
  EXPECT_EQ(reader->missing(ids_of(6, 7), false).value(), (std::vector{false, true}));
  EXPECT_EQ(reader->missing(ids_of(6, 7), true).error().code, ErrorCode::conflict);
  EXPECT_EQ(put(*reader, 9).error().code, ErrorCode::conflict);
  EXPECT_EQ(reader->forget(id_of(1)).error().code, ErrorCode::conflict);
  EXPECT_EQ(reader->stats()->chunks, 6U);
  std::uint64_t frames = 0;
  EXPECT_TRUE(verify(*reader, &frames).empty());
  EXPECT_EQ(frames, 6U);
  EXPECT_EQ(ChunkStore::open_read_only(dir_ / "nothing").error().code, ErrorCode::not_found);
}

TEST_F(Store, ManyThreadsPutAndFind) {
  reopen({.pack_bytes = 1 << 20, .commit_every = 16});
  constexpr std::uint64_t kThreads = 4, kEach = 400;
  std::atomic<int> bad{0};
  {
    std::vector<std::jthread> threads;
    for (std::uint64_t thread = 0; thread < kThreads; ++thread) {
      threads.emplace_back([&, thread] {
        for (std::uint64_t i = 0; i < kEach; ++i) {
          // Half of all are put by two threads at once.
          const auto number = thread / 2 * kEach * 2 + i * 2 + (i % 2 == 0 ? 0 : thread % 2);
          if (!put(*store_, number)) ++bad;
          if (read(*store_, id_of(number)) != content(number)) ++bad;
        }
      });
    }
  }
  EXPECT_EQ(bad, 0);
  ASSERT_TRUE(store_->flush());
  EXPECT_EQ(store_->stats()->chunks, 2 * (kEach / 2 + kEach));
  EXPECT_TRUE(verify(*store_).empty());
}

TEST_F(Store, SlicesHaveTheLengthsTheyShould) {
  put_all(1, 1);
  auto slice = *find_one(*store_, id_of(1));
  slice.length = 10;
  EXPECT_EQ(load(slice).error().code, ErrorCode::corrupt);
  slice.length = 4096;
  EXPECT_EQ(load(slice).error().code, ErrorCode::corrupt);
  slice.length = kMaxFrameBytes;
  EXPECT_EQ(load(slice).error().code, ErrorCode::corrupt) << "behind the pack's end";
  EXPECT_EQ(load({}).error().code, ErrorCode::corrupt);
}

}  // namespace
}  // namespace educloud::chunk
