// What is left after a crash, a power cut, a full disk.
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <random>
#include <thread>

#include "store_support.hpp"

namespace educloud::chunk {
namespace {

namespace fs = std::filesystem;

class StoreCrash : public StoreFixture {
 protected:
  static constexpr ChunkStore::Options kSmall{.pack_bytes = 200'000, .commit_every = 10};

  std::unique_ptr<ChunkStore> open(const fs::path& directory, ChunkStore::Options options = kSmall) {
    auto opened = ChunkStore::open(directory, options);
    EXPECT_TRUE(opened) << opened.error().message;
    return opened ? std::move(*opened) : nullptr;
  }
  static std::uint64_t size_of(const fs::path& file) {
    std::error_code error;
    const auto size = fs::file_size(file, error);
    return error ? 0 : size;
  }
};

TEST_F(StoreCrash, WhatWasNotCommittedIsCutOff) {
  reopen({.commit_every = 100'000});
  put_all(1, 20);
  ASSERT_TRUE(store_->flush());
  const auto committed = size_of(dir_ / "chunks" / "packs" / "1.pack");
  put_all(21, 40);
  const auto copy = snapshot("crashed");
  ASSERT_GT(size_of(copy / "packs" / "1.pack"), committed);
  const auto store = open(copy);
  EXPECT_EQ(size_of(copy / "packs" / "1.pack"), committed);
  EXPECT_EQ(store->missing(ids_of(1, 40), false).value(), [] {
    std::vector<bool> missing(40, true);
    std::fill_n(missing.begin(), 20, false);
    return missing;
  }());
  ASSERT_TRUE(put(*store, 30));
  EXPECT_EQ(read(*store, id_of(30)), content(30));
  EXPECT_TRUE(verify(*store).empty());
}

TEST_F(StoreCrash, AtAnyMomentOfManyPuts) {
  reopen(kSmall);
  for (int moment = 0; moment < 20; ++moment) {
    const auto first = static_cast<std::uint64_t>(moment) * 13;
    put_all(first, first + 12);
    const auto copy = snapshot("crashed" + std::to_string(moment));
    const auto store = open(copy);
    EXPECT_TRUE(verify(*store).empty()) << moment;
    EXPECT_GE(store->stats()->chunks + kSmall.commit_every, first + 13);
    for (std::uint64_t number = 0; number + 12 < first; ++number) {
      ASSERT_EQ(read(*store, id_of(number)), content(number)) << moment;
    }
  }
}

TEST_F(StoreCrash, APackThatLostItsEndLosesThoseChunksOnly) {
  for (const bool durable : {false, true}) {
    auto options = kSmall;
    options.durable = durable;
    reopen(options);
    put_all(1, 20);
    ASSERT_TRUE(store_->flush());
    const auto copy = snapshot(durable ? "durable" : "cache");
    fs::resize_file(copy / "packs" / "1.pack", find_one(*store_, id_of(15))->offset + 1000);
    const auto store = open(copy, options);
    EXPECT_EQ(store->stats()->chunks, 14U);
    EXPECT_EQ(read(*store, id_of(14)), content(14));
    EXPECT_FALSE(find_one(*store, id_of(15)));
    EXPECT_TRUE(verify(*store).empty());
    ASSERT_TRUE(put(*store, 15));
    EXPECT_EQ(read(*store, id_of(15)), content(15));
  }
}

TEST_F(StoreCrash, PacksWithoutRowsAndRowsWithoutPacksGo) {
  reopen(kSmall);
  put_all(1, 200);
  ASSERT_TRUE(store_->flush());
  const auto copy = snapshot("crashed");
  fs::remove(copy / "packs" / "2.pack");
  std::ofstream(copy / "packs" / "77.pack") << "killed before its first commit";
  std::ofstream(copy / "packs" / "078.pack") << "not ours";
  std::ofstream(copy / "packs" / "notes.txt") << "not ours";
  auto store = open(copy);
  EXPECT_FALSE(fs::exists(copy / "packs" / "77.pack"));
  EXPECT_TRUE(fs::exists(copy / "packs" / "078.pack"));
  EXPECT_TRUE(fs::exists(copy / "packs" / "notes.txt"));
  EXPECT_EQ(read(*store, id_of(1)), content(1));
  EXPECT_EQ(read(*store, id_of(200)), content(200));
  EXPECT_FALSE(find_one(*store, id_of(50)));
  EXPECT_LT(store->stats()->chunks, 200U);
  EXPECT_TRUE(verify(*store).empty());
}

/// Puts and sweeps until it is killed; tells what is flushed.
[[noreturn]] void work_until_killed(const fs::path& directory, std::uint64_t first, int pipe,
                                    ChunkStore::Options options,
                                    const std::function<Result<>(ChunkStore&, std::uint64_t)>& put) {
  auto opened = ChunkStore::open(directory, options);
  if (!opened) ::_exit(3);
  auto& store = **opened;
  std::jthread sweeper([&](std::stop_token stop) {
    while (!stop.stop_requested()) {
      // Nothing lives but by the grace period.
      (void)store.sweep([](const auto&) { return Result<>{}; }, std::chrono::hours(1), stop);
    }
  });
  for (auto number = first;; ++number) {
    if (!put(store, number)) ::_exit(4);
    if (number % 25 != 0) continue;
    if (!store.flush() || ::write(pipe, &number, sizeof number) != sizeof number) ::_exit(5);
  }
}

TEST_F(StoreCrash, KilledAnywhereNothingFlushedIsLost) {
  std::mt19937 random(20260131);
  std::uint64_t next = 1, flushed = 0;
  const auto directory = dir_ / "chunks";
  for (int round = 0; round < 12; ++round) {
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    const auto child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      work_until_killed(directory, next, ends[1], kSmall,
                        [](ChunkStore& store, std::uint64_t number) { return put(store, number); });
    }
    ::close(ends[1]);
    const auto reports = 1 + random() % 12;
    std::uint64_t number = 0;
    for (std::size_t i = 0; i < reports && ::read(ends[0], &number, sizeof number) == sizeof number; ++i) {
      flushed = number;
    }
    ::kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << WEXITSTATUS(status);
    while (::read(ends[0], &number, sizeof number) == sizeof number) flushed = number;
    ::close(ends[0]);
    reopen(kSmall);
    ASSERT_TRUE(verify(*store_).empty()) << "round " << round;
    for (std::uint64_t i = 1; i <= flushed; ++i) ASSERT_EQ(read(i), content(i)) << "round " << round;
    next = flushed + 1;
    store_.reset();
  }
}

TEST_F(StoreCrash, KilledWhileItSweepsOnlyTheDeadAreLost) {
  std::mt19937 random(7);
  for (int round = 0; round < 12; ++round) {
    reopen(kSmall);
    put_all(0, 199);
    std::vector<ChunkId> live;
    for (std::uint64_t number = 0; number < 200; number += 3) live.push_back(id_of(number));
    sweep(live);  // notes the others as dead
    store_.reset();
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    const auto child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      auto opened = ChunkStore::open(dir_ / "chunks", kSmall);
      if (!opened) ::_exit(3);
      const auto swept = (*opened)->sweep(
          [&](const auto& mark) -> Result<> {
            mark(live);
            if (::write(ends[1], "x", 1) != 1) ::_exit(5);
            return {};
          },
          {}, {});
      ::_exit(swept ? 0 : 4);
    }
    ::close(ends[1]);
    char byte = 0;
    ASSERT_EQ(::read(ends[0], &byte, 1), 1);
    // Any moment of the sweep will do, and after it: a while counted in system calls, not a time.
    for (auto spins = random() % 20'000; spins > 0; --spins) ::getppid();
    ::kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status) || WEXITSTATUS(status) == 0) << WEXITSTATUS(status);
    ::close(ends[0]);
    reopen(kSmall);
    ASSERT_TRUE(verify(*store_).empty()) << "round " << round;
    for (const auto& id : live) ASSERT_EQ(ChunkId::of(read(*store_, id)), id) << "round " << round;
    sweep(live);
    ASSERT_TRUE(verify(*store_).empty()) << "round " << round;
  }
}

/// No file of this process may grow beyond a limit: to a store that is a full disk.
class FullDisk {
 public:
  explicit FullDisk(rlim_t bytes) {
    ::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &before_);
    auto limit = before_;
    limit.rlim_cur = bytes;
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FullDisk() { ::setrlimit(RLIMIT_FSIZE, &before_); }

 private:
  rlimit before_{};
};

TEST_F(StoreCrash, AFullDiskRefusesAndLosesNothing) {
  reopen({.commit_every = 8});
  std::uint64_t number = 1;
  {
    const FullDisk full(500'000);
    Result<> done;
    for (; done && number < 1000; ++number) done = put(*store_, number);
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().code, ErrorCode::exhausted);
    EXPECT_FALSE(put(*store_, number));
    EXPECT_EQ(read(1), content(1));
    EXPECT_EQ(read(number - 2), content(number - 2));
  }
  put_all(number, number + 50);
  ASSERT_TRUE(store_->flush());
  reopen();
  for (std::uint64_t i = 1; i <= number + 50; ++i) {
    if (i == number - 1) continue;  // refused
    ASSERT_EQ(read(i), content(i));
  }
  EXPECT_TRUE(verify(*store_).empty());
}

TEST_F(StoreCrash, AnIndexThatCannotGrowRefusesAndLosesNothing) {
  reopen({.commit_every = 8});
  std::vector<std::uint64_t> taken;
  {
    const FullDisk full(200'000);
    std::size_t refused = 0;
    for (std::uint64_t number = 1; refused < 100 && number < 3000; ++number) {
      const auto done = put(*store_, number, 16);
      if (done) {
        taken.push_back(number);
        continue;
      }
      ++refused;
      ASSERT_EQ(done.error().code, ErrorCode::exhausted) << done.error().message;
    }
    ASSERT_EQ(refused, 100U);
    EXPECT_FALSE(store_->flush());
  }
  ASSERT_TRUE(store_->flush());
  reopen();
  for (const auto number : taken) ASSERT_EQ(read(*store_, id_of(number, 16)), content(number, 16));
  EXPECT_TRUE(verify(*store_).empty());
}

}  // namespace
}  // namespace educloud::chunk
