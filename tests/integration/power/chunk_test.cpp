// The chunks of walrus: what was flushed is there, what is there is right.
#include "integration/power/cuts.hpp"
#include "unit/chunk_store/store_support.hpp"

namespace educloud::chunk {
namespace {

namespace fs = std::filesystem;
using educloud::testing::DiskRecorder;

/// A store at random work: puts, flushes, sweeps, is opened again.
class Life : public StoreFixture {
 public:
  explicit Life(std::uint64_t seed) : seed_(seed), random_(seed) {}
  void TestBody() override {}

  void run(int cuts) {
    fs::create_directory(dir_ / "chunks");
    DiskRecorder recorder(dir_ / "chunks");
    reopen(kSmall);
    while (recorder.position() < 1500 && !HasFailure()) act(recorder);
    const auto recording = recorder.stop();
    educloud::testing::expect_all_recorded(recording, dir_ / "chunks");
    educloud::testing::cut_often(recording, seed_, cuts, [this](const fs::path& disk, std::size_t position) {
      const auto opened = ChunkStore::open(disk, kSmall);
      ASSERT_TRUE(opened) << opened.error().message;
      EXPECT_TRUE(verify(**opened).empty());
      std::uint64_t flushed = 0;
      for (const auto& [at, number] : flushed_)
        if (at <= position) flushed = number;
      for (std::uint64_t i = 1; i <= flushed; ++i)
        if (lives(i)) {
          ASSERT_EQ(read(**opened, id_of(i, bytes(i))), content(i, bytes(i))) << i << " was flushed";
        }
    });
  }

 private:
  static constexpr ChunkStore::Options kSmall{.pack_bytes = 200'000, .commit_every = 10};
  static bool lives(std::uint64_t number) { return number % 5 != 0; }
  static std::size_t bytes(std::uint64_t number) { return 512 + number * 1543 % 4000 / 8 * 8; }

  void act(const DiskRecorder& recorder) {
    switch (random_() % 12) {
      case 0: {
        ASSERT_TRUE(store_->flush());
        flushed_.emplace_back(recorder.position(), newest_);
        return;
      }
      case 1:
        // The second one removes what the first has noted as dead.
        if (random_() % 3 == 0) {
          sweep(live());
          sweep(live());
        }
        return;
      case 2:
        if (random_() % 4 == 0) reopen(kSmall);
        return;
      default: ++newest_; ASSERT_TRUE(put(*store_, newest_, bytes(newest_)));
    }
  }
  std::vector<ChunkId> live() const {
    std::vector<ChunkId> ids;
    for (std::uint64_t i = 1; i <= newest_; ++i)
      if (lives(i)) ids.push_back(id_of(i, bytes(i)));
    return ids;
  }

  const std::uint64_t seed_;
  std::mt19937_64 random_;
  std::uint64_t newest_ = 0;
  std::vector<std::pair<std::size_t, std::uint64_t>> flushed_;
};

TEST(Power, FlushedChunksAreThereAfterACut) {
  for (const auto seed : educloud::testing::lives(4)) {
    SCOPED_TRACE("EDUCLOUD_POWER_SEED=" + std::to_string(seed));
    Life life(seed);
    life.run(100);
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace educloud::chunk
