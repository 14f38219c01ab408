#pragma once

#include <gtest/gtest.h>

#include <fstream>

#include "common/chunk/chunk_store.hpp"
#include "support/temp_dir.hpp"

namespace educloud::chunk {

/// Frames made of a number, and a store to put them into.
class StoreFixture : public ::testing::Test {
 protected:
  /// A chunk's content: a number and noise, so that it does not compress.
  static std::string content(std::uint64_t number, std::size_t bytes = 4096) {
    std::string text(bytes, '\0');
    std::uint64_t state = number * 0x9E3779B97F4A7C15ULL + 1;
    for (std::size_t i = 0; i + 8 <= bytes; i += 8) {
      state ^= state << 13;
      state ^= state >> 7;
      state ^= state << 17;
      std::memcpy(text.data() + i, &state, 8);
    }
    return text;
  }

  static ChunkId id_of(std::uint64_t number, std::size_t bytes = 4096) {
    return ChunkId::of(content(number, bytes));
  }
  static std::vector<ChunkId> ids_of(std::uint64_t first, std::uint64_t last) {
    std::vector<ChunkId> ids;
    for (auto number = first; number <= last; ++number) ids.push_back(id_of(number));
    return ids;
  }

  static Result<> put(ChunkStore& store, std::uint64_t number, std::size_t bytes = 4096) {
    thread_local FrameEncoder encoder;
    std::string frame;
    const auto header = encoder.append(content(number, bytes), frame);
    if (!header) return fail(header.error());
    return store.put(*header, std::span<const char>(frame).subspan(kFrameHeaderBytes));
  }
  void put_all(std::uint64_t first, std::uint64_t last) {
    for (auto number = first; number <= last; ++number) {
      const auto done = put(*store_, number);
      ASSERT_TRUE(done) << done.error().message;
    }
  }

  static std::optional<FrameSlice> find_one(ChunkStore& store, const ChunkId& id) {
    auto slices = store.find({&id, 1});
    EXPECT_TRUE(slices) << slices.error().message;
    return slices ? slices->front() : std::nullopt;
  }
  bool has(std::uint64_t number) { return find_one(*store_, id_of(number)).has_value(); }

  /// Reads a chunk back and proves it; "" if it is not there.
  static std::string read(ChunkStore& store, const ChunkId& id) {
    const auto slice = find_one(store, id);
    return slice ? read(*slice) : "";
  }
  static std::string read(const FrameSlice& slice) {
    const auto frame = load(slice);
    if (!frame) return "error: " + frame.error().message;
    FrameDecoder decoder;
    std::string raw(frame->header.raw_bytes, '\0');
    const auto done = decoder.decode(frame->header, frame->stored, raw);
    return done ? raw : "error: " + done.error().message;
  }
  std::string read(std::uint64_t number) { return read(*store_, id_of(number)); }

  static std::vector<Damage> verify(ChunkStore& store, std::uint64_t* frames = nullptr) {
    std::vector<Damage> damages;
    const auto read = store.verify([&](const Damage& damage) { damages.push_back(damage); }, nullptr, {});
    EXPECT_TRUE(read) << read.error().message;
    if (frames != nullptr && read) *frames = *read;
    return damages;
  }

  void reopen(ChunkStore::Options options = {}) {
    store_.reset();
    auto opened = ChunkStore::open(dir_ / "chunks", options);
    ASSERT_TRUE(opened) << opened.error().message;
    store_ = std::move(*opened);
  }

  /// As a crash would leave it: the files as they are now, of a process that does nothing more.
  std::filesystem::path snapshot(const std::string& name) {
    const auto copy = dir_ / name;
    std::filesystem::copy(dir_ / "chunks", copy, std::filesystem::copy_options::recursive);
    return copy;
  }

  SweepReport sweep(const std::vector<ChunkId>& live, std::chrono::seconds grace = {}) {
    const auto report = store_->sweep(
        [&](const auto& mark) -> Result<> {
          mark(live);
          return {};
        },
        grace, {});
    EXPECT_TRUE(report) << report.error().message;
    return report.value_or(SweepReport{});
  }

  const educloud::testing::TempDir dir_;
  std::unique_ptr<ChunkStore> store_;
};

}  // namespace educloud::chunk
