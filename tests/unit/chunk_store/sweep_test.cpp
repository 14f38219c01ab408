#include <sys/stat.h>

#include <atomic>
#include <thread>

#include "store_support.hpp"

namespace educloud::chunk {
namespace {

using std::chrono::hours;
using std::chrono::seconds;

class Sweep : public StoreFixture {
 protected:
  Sweep() { reopen(); }

  std::uint64_t allocated() {
    std::uint64_t sum = 0;
    for (const auto& entry : std::filesystem::directory_iterator(dir_ / "chunks" / "packs")) {
      struct stat info {};
      if (::stat(entry.path().c_str(), &info) == 0) sum += static_cast<std::uint64_t>(info.st_blocks) * 512;
    }
    return sum;
  }
};

TEST_F(Sweep, NotesFirstAndRemovesWithTheNext) {
  put_all(1, 10);
  auto report = sweep(ids_of(1, 4));
  EXPECT_EQ(report.live, 4U);
  EXPECT_EQ(report.newly_dead, 6U);
  EXPECT_EQ(report.removed, 0U);
  EXPECT_TRUE(has(10));
  report = sweep(ids_of(1, 4));
  EXPECT_EQ(report.newly_dead, 0U);
  EXPECT_EQ(report.removed, 6U);
  for (std::uint64_t number = 1; number <= 10; ++number) EXPECT_EQ(has(number), number <= 4) << number;
  EXPECT_EQ(store_->stats()->chunks, 4U);
  EXPECT_EQ(store_->missing(ids_of(4, 5), true).value(), (std::vector{false, true}));
  put_all(5, 5);
  EXPECT_EQ(read(5), content(5));
  EXPECT_TRUE(verify(*store_).empty());
}

TEST_F(Sweep, WaitsForTheGracePeriodAlsoOverARestart) {
  put_all(1, 10);
  EXPECT_EQ(sweep({}, hours(1)).newly_dead, 10U);
  reopen();
  const auto again = sweep({}, hours(1));
  EXPECT_EQ(again.newly_dead, 0U);
  EXPECT_EQ(again.removed, 0U);
  EXPECT_EQ(sweep({}, seconds(0)).removed, 10U);
}

TEST_F(Sweep, WhatIsAskedForOrPutOrMarkedAgainIsNotedAnew) {
  put_all(1, 4);
  EXPECT_EQ(sweep({}).newly_dead, 4U);
  EXPECT_EQ(store_->missing(ids_of(1, 1), true).value(), std::vector{false});
  EXPECT_EQ(store_->missing(ids_of(2, 2), false).value(), std::vector{false});
  put_all(3, 3);
  auto report = sweep({id_of(4)});
  EXPECT_EQ(report.newly_dead, 2U) << "1 and 3";
  EXPECT_EQ(report.removed, 1U) << "2, which nobody wanted to keep";
  EXPECT_FALSE(has(2));
  report = sweep({});
  EXPECT_EQ(report.newly_dead, 1U) << "4";
  EXPECT_EQ(report.removed, 2U);
}

TEST_F(Sweep, MarksMayRepeatAndNameWhatIsNotHere) {
  put_all(1, 3);
  const auto report = store_->sweep(
      [&](const auto& mark) -> Result<> {
        for (int i = 0; i < 3; ++i) mark(ids_of(2, 5));
        mark({});
        // Who marks may read from the store.
        return has(1) ? Result<>{} : fail(ErrorCode::internal, "gone");
      },
      seconds(0), {});
  ASSERT_TRUE(report);
  EXPECT_EQ(report->live, 2U);
  EXPECT_EQ(report->newly_dead, 1U);
}

TEST_F(Sweep, DoesNothingIfItIsNotKnownWhatLives) {
  put_all(1, 3);
  sweep({});
  const auto failed = store_->sweep(
      [](const auto&) -> Result<> { return fail(ErrorCode::corrupt, "a manifest can not be read"); },
      seconds(0), {});
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, ErrorCode::corrupt);
  EXPECT_TRUE(has(1) && has(2) && has(3));
  std::stop_source stop;
  stop.request_stop();
  const auto stopped = store_->sweep([](const auto&) { return Result<>{}; }, seconds(0), stop.get_token());
  ASSERT_FALSE(stopped);
  EXPECT_EQ(stopped.error().code, ErrorCode::cancelled);
}

TEST_F(Sweep, GivesSpaceBack) {
  reopen({.pack_bytes = 4 << 20});
  constexpr std::size_t kBytes = 65536;
  std::vector<ChunkId> live;
  for (std::uint64_t number = 0; number < 200; ++number) {
    ASSERT_TRUE(put(*store_, number, kBytes));
    // The second pack has nothing that lives, the others little.
    if (number % 10 == 0 && (number < 60 || number > 130)) live.push_back(id_of(number, kBytes));
  }
  ASSERT_TRUE(store_->flush());
  const auto before = allocated();
  sweep(live);
  const auto report = sweep(live);
  EXPECT_EQ(report.removed, 200 - live.size());
  EXPECT_LT(allocated(), before / 4);
  EXPECT_NEAR(static_cast<double>(report.freed_bytes), static_cast<double>(before - allocated()), 1 << 16);
  EXPECT_FALSE(std::filesystem::exists(dir_ / "chunks" / "packs" / "2.pack"));
  EXPECT_LE(store_->stats()->disk_bytes, allocated() + (1 << 20));
  for (const auto& id : live) EXPECT_EQ(ChunkId::of(read(*store_, id)), id);
  EXPECT_TRUE(verify(*store_).empty());
  reopen({.pack_bytes = 4 << 20});
  for (const auto& id : live) EXPECT_EQ(ChunkId::of(read(*store_, id)), id);
  EXPECT_TRUE(verify(*store_).empty());
}

TEST_F(Sweep, PunchesWhatAKilledSweepDidNot) {
  constexpr std::size_t kBytes = 65536;
  for (std::uint64_t number = 0; number < 50; ++number) ASSERT_TRUE(put(*store_, number, kBytes));
  ASSERT_TRUE(store_->flush());
  std::vector<ChunkId> live{id_of(0, kBytes), id_of(49, kBytes)};
  // Rows gone, bytes still there: the state between the two.
  for (std::uint64_t number = 1; number < 49; ++number) ASSERT_TRUE(store_->forget(id_of(number, kBytes)));
  const auto before = allocated();
  EXPECT_GT(sweep(live).freed_bytes, before / 2);
  EXPECT_LT(allocated(), before / 4);
  EXPECT_TRUE(verify(*store_).empty());
}

TEST_F(Sweep, AFrameThatIsHeldStaysReadable) {
  reopen({.pack_bytes = 1 << 20});
  constexpr std::size_t kBytes = 65536;
  for (std::uint64_t number = 0; number < 64; ++number) ASSERT_TRUE(put(*store_, number, kBytes));
  ASSERT_TRUE(store_->flush());
  auto held = find_one(*store_, id_of(3, kBytes));
  ASSERT_TRUE(held);
  sweep({});
  EXPECT_EQ(sweep({}).removed, 64U);
  EXPECT_FALSE(find_one(*store_, id_of(3, kBytes)));
  EXPECT_EQ(read(*held), content(3, kBytes));
  EXPECT_TRUE(std::filesystem::exists(dir_ / "chunks" / "packs" / "1.pack"));
  held.reset();
  sweep({});
  EXPECT_FALSE(std::filesystem::exists(dir_ / "chunks" / "packs" / "1.pack"));
}

TEST_F(Sweep, RunsWhileOthersPutAndFind) {
  reopen({.pack_bytes = 1 << 20, .durable = false, .commit_every = 8});
  put_all(0, 99);
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> last{99};
  std::atomic<int> bad{0};
  {
    std::jthread putter([&] {
      for (std::uint64_t number = 100; number < 3000; ++number) {
        if (!put(*store_, number)) ++bad;
        last = number;
      }
      stop = true;
    });
    std::jthread finder([&] {
      for (std::uint64_t i = 0; !stop; ++i) {
        const auto number = i % 2 == 0 ? i % 50 : last.load();
        if (read(*store_, id_of(number)) != content(number)) ++bad;
      }
    });
    // 0..49 live, 50..99 do not; what comes meanwhile is protected by the grace period.
    for (int i = 0; !stop; ++i) sweep(ids_of(0, 49), hours(1));
  }
  EXPECT_EQ(bad, 0);
  EXPECT_EQ(store_->stats()->chunks, 3000U);
  sweep(ids_of(0, 49));
  EXPECT_EQ(sweep(ids_of(0, 49)).live, 50U);
  EXPECT_EQ(store_->stats()->chunks, 50U);
  EXPECT_TRUE(verify(*store_).empty());
}

}  // namespace
}  // namespace educloud::chunk
