// What verify() finds.
#include <fcntl.h>
#include <unistd.h>

#include "store_support.hpp"

namespace educloud::chunk {
namespace {

class StoreDamage : public StoreFixture {
 protected:
  StoreDamage() {
    reopen();
    put_all(1, 20);
    EXPECT_TRUE(store_->flush());
  }

  void flip(std::uint64_t offset, int bit = 0) {
    const auto fd = sys::open_file(pack_, O_RDWR).value();
    char byte = 0;
    ASSERT_EQ(::pread(fd.get(), &byte, 1, static_cast<off_t>(offset)), 1);
    byte = static_cast<char>(byte ^ (1 << bit));
    ASSERT_EQ(::pwrite(fd.get(), &byte, 1, static_cast<off_t>(offset)), 1);
  }

  const std::filesystem::path pack_ = dir_ / "chunks" / "packs" / "1.pack";
};

TEST_F(StoreDamage, AFlippedBitAnywhereIsFoundAndNamed) {
  std::uint64_t frames = 0;
  ASSERT_TRUE(verify(*store_, &frames).empty());
  EXPECT_EQ(frames, 20U);
  const auto slice = *find_one(*store_, id_of(7));
  // Magic, codec, reserved, raw_bytes, stored_bytes, checksum, id, stored bytes.
  for (const std::uint64_t at : {0, 3, 4, 5, 7, 8, 11, 12, 15, 16, 23, 24, 55, 56, 2000, 4096 + 55}) {
    flip(slice.offset + at, static_cast<int>(at % 8));
    const auto damages = verify(*store_, &frames);
    ASSERT_EQ(damages.size(), 1U) << at;
    EXPECT_EQ(damages[0].id, id_of(7)) << at;
    EXPECT_EQ(damages[0].pack, "1.pack");
    EXPECT_EQ(damages[0].offset, slice.offset);
    EXPECT_FALSE(damages[0].what.empty());
    EXPECT_EQ(frames, 20U);
    const auto from_outside = verify(*ChunkStore::open_read_only(dir_ / "chunks").value());
    EXPECT_EQ(from_outside.size(), 1U) << at;
    flip(slice.offset + at, static_cast<int>(at % 8));
  }
  EXPECT_TRUE(verify(*store_).empty());
}

TEST_F(StoreDamage, AForgottenChunkHealsWhenItIsPutAgain) {
  flip(find_one(*store_, id_of(7))->offset + 100);
  EXPECT_NE(read(7), content(7));
  ASSERT_TRUE(store_->forget(id_of(7)));
  put_all(7, 7);
  EXPECT_EQ(read(7), content(7));
  EXPECT_TRUE(verify(*store_).empty());
}

TEST_F(StoreDamage, ACutPackNamesAllThatIsGone) {
  const auto slice = *find_one(*store_, id_of(18));
  std::filesystem::resize_file(pack_, slice.offset + 100);
  const auto damages = verify(*store_);
  ASSERT_EQ(damages.size(), 3U);
  EXPECT_EQ(damages[0].id, id_of(18));
  EXPECT_EQ(damages[2].id, id_of(20));
}

TEST_F(StoreDamage, AMissingPackNamesAllThatIsGone) {
  std::filesystem::remove(pack_);
  const auto damages = verify(*ChunkStore::open_read_only(dir_ / "chunks").value());
  EXPECT_EQ(damages.size(), 20U);
}

TEST_F(StoreDamage, ItIsToldHowFarItIsAndStops) {
  std::uint64_t last = 0, total = 0;
  ASSERT_TRUE(
      store_->verify([](const Damage&) {}, [&](auto done, auto all) { last = done, total = all; }, {}));
  EXPECT_EQ(last, total);
  EXPECT_EQ(total, store_->stats()->stored_bytes);
  std::stop_source stop;
  stop.request_stop();
  const auto stopped = store_->verify([](const Damage&) {}, nullptr, stop.get_token());
  ASSERT_FALSE(stopped);
  EXPECT_EQ(stopped.error().code, ErrorCode::cancelled);
}

TEST_F(StoreDamage, ADurableStoreDoesNotHideADamagedIndex) {
  store_.reset();
  dir_.write("chunks/index.sqlite", std::string(20'000, 'x'));
  const auto opened = ChunkStore::open(dir_ / "chunks", {});
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, ErrorCode::corrupt);
  EXPECT_TRUE(std::filesystem::exists(pack_));
  EXPECT_EQ(ChunkStore::open_read_only(dir_ / "chunks").error().code, ErrorCode::corrupt);
}

TEST_F(StoreDamage, ACacheStartsAgainWithoutIt) {
  store_.reset();
  dir_.write("chunks/index.sqlite", std::string(20'000, 'x'));
  reopen({.durable = false});
  EXPECT_EQ(store_->stats()->chunks, 0U);
  put_all(1, 5);
  reopen({.durable = false});
  EXPECT_EQ(read(5), content(5));
}

}  // namespace
}  // namespace educloud::chunk
