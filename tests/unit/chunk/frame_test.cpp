#include "common/chunk/frame.hpp"

#include <gmock/gmock.h>
#include <xxhash.h>
#include <zstd.h>

#include <random>

namespace educloud::chunk {
namespace {

using ::testing::HasSubstr;

std::string noise(std::size_t size, unsigned seed = 1) {
  std::mt19937 random(seed);
  std::string text(size, '\0');
  for (auto& c : text) c = static_cast<char>(random());
  return text;
}

std::string prose(std::size_t size) {
  std::string text;
  while (text.size() < size) text += "line " + std::to_string(text.size()) + " of a text that packs well\n";
  text.resize(size);
  return text;
}

struct Parts {
  FrameHeader header;
  std::string stored;
};

Parts frame_of(std::string_view raw) {
  FrameEncoder encoder;
  std::string out;
  const auto header = encoder.append(raw, out).value();
  EXPECT_EQ(out.size(), header.frame_bytes());
  EXPECT_EQ(decode_header(std::span<const char>(out).first(kFrameHeaderBytes)).value(), header);
  return {header, out.substr(kFrameHeaderBytes)};
}

/// A frame of `stored` with a right checksum, as an attacker would make it.
Parts forged(Codec codec, std::string_view raw, std::uint32_t says_raw_bytes, std::string stored) {
  FrameHeader header;
  header.id = ChunkId::of(raw);
  header.codec = codec;
  header.raw_bytes = says_raw_bytes;
  header.stored_bytes = static_cast<std::uint32_t>(stored.size());
  header.checksum = ::XXH3_64bits(stored.data(), stored.size());
  return {header, std::move(stored)};
}

std::string zstd(std::string_view raw) {
  std::string out(::ZSTD_compressBound(raw.size()), '\0');
  out.resize(::ZSTD_compress(out.data(), out.size(), raw.data(), raw.size(), 1));
  return out;
}

/// Decodes into a buffer with a guard behind raw_bytes.
Result<std::string> decode(const Parts& parts) {
  constexpr char kGuard = '\x5a';
  FrameDecoder decoder;
  std::string out(kChunkBytes + 4096, kGuard);
  const auto ok = decoder.decode(parts.header, parts.stored, out);
  for (std::size_t i = parts.header.raw_bytes; i < out.size(); ++i) {
    if (out[i] != kGuard) return fail(ErrorCode::internal, "wrote past raw_bytes");
  }
  if (!ok) return fail(ok.error());
  return out.substr(0, parts.header.raw_bytes);
}

void expect_corrupt(const Parts& parts, std::string_view why) {
  const auto result = decode(parts);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::corrupt);
  EXPECT_THAT(result.error().message, HasSubstr(parts.header.id.hex()));
  EXPECT_THAT(result.error().message, HasSubstr(std::string(why)));
}

TEST(FrameTest, ComesBackWhateverItHolds) {
  for (const std::size_t size : {std::size_t{1}, std::size_t{2}, std::size_t{15}, std::size_t{16},
                                 std::size_t{512}, std::size_t{kChunkBytes - 1}, std::size_t{kChunkBytes}}) {
    for (const auto& raw : {noise(size), prose(size), std::string(size, '\0')}) {
      const auto result = decode(frame_of(raw));
      ASSERT_TRUE(result) << size << ": " << result.error().message;
      EXPECT_EQ(*result, raw);
    }
  }
}

TEST(FrameTest, PacksWhatPacksAndLeavesTheRest) {
  EXPECT_EQ(frame_of(prose(kChunkBytes)).header.codec, Codec::zstd);
  EXPECT_EQ(frame_of(noise(kChunkBytes)).header.codec, Codec::raw);
  // 1/32 of it is zeros: packing saves less than 1/16.
  EXPECT_EQ(frame_of(noise(kChunkBytes / 32 * 31) + std::string(kChunkBytes / 32, '\0')).header.codec,
            Codec::raw);
  EXPECT_EQ(frame_of(noise(kChunkBytes / 32 * 28) + std::string(kChunkBytes / 8, '\0')).header.codec,
            Codec::zstd);
  EXPECT_EQ(frame_of("x").header.codec, Codec::raw);
}

TEST(FrameTest, EncoderRefusesNothingAndTooMuch) {
  FrameEncoder encoder;
  std::string out;
  EXPECT_EQ(encoder.append({}, out).error().code, ErrorCode::invalid_argument);
  EXPECT_EQ(encoder.append(std::string(kChunkBytes + 1, 'x'), out).error().code, ErrorCode::invalid_argument);
  EXPECT_TRUE(out.empty());
}

TEST(FrameTest, EveryFlippedBitIsFound) {
  const auto good = frame_of(prose(300));
  for (std::size_t bit = 0; bit < good.stored.size() * 8; ++bit) {
    auto bad = good;
    bad.stored[bit / 8] = static_cast<char>(bad.stored[bit / 8] ^ (1 << (bit % 8)));
    expect_corrupt(bad, "checksum");
  }
}

TEST(FrameTest, AnotherContentIsFound) {
  expect_corrupt(forged(Codec::raw, "right", 5, "wrong"), "SHA-256");
  const auto text = prose(5000);
  expect_corrupt(forged(Codec::zstd, "right", 5000, zstd(text)), "SHA-256");
}

TEST(FrameTest, ChunkThatUnpacksToMoreIsRefused) {
  const std::string bomb(10 << 20, '\0');
  expect_corrupt(forged(Codec::zstd, bomb, kChunkBytes, zstd(bomb)), "is not 65536 bytes unpacked");
  expect_corrupt(forged(Codec::zstd, prose(900), 800, zstd(prose(900))), "is not 800 bytes unpacked");
  expect_corrupt(forged(Codec::zstd, prose(900), 1000, zstd(prose(900))), "is not 1000 bytes unpacked");
  // Two frames of which the first has the right size.
  expect_corrupt(forged(Codec::zstd, prose(900), 900, zstd(prose(900)) + zstd(prose(900))), "behind it");
}

TEST(FrameTest, FrameThatLiesAboutItsSizeInsideIsRefused) {
  // The content size in the zstd frame's own header is changed: byte 4 is the descriptor, then the size.
  auto stored = zstd(prose(900));
  const auto says = ::ZSTD_getFrameContentSize(stored.data(), stored.size());
  ASSERT_EQ(says, 900U);
  for (int byte = 5; byte < 9; ++byte) {
    auto lie = stored;
    lie[static_cast<std::size_t>(byte)] = static_cast<char>(lie[static_cast<std::size_t>(byte)] ^ 1);
    const auto now = ::ZSTD_getFrameContentSize(lie.data(), lie.size());
    if (now == says || now > kChunkBytes || now == 0) continue;
    expect_corrupt(forged(Codec::zstd, prose(900), static_cast<std::uint32_t>(now), lie), "unpack");
  }
}

TEST(FrameTest, CutOrForeignDataIsRefused) {
  const auto stored = zstd(prose(900));
  expect_corrupt(forged(Codec::zstd, prose(900), 900, stored.substr(0, stored.size() - 1)), "cut");
  expect_corrupt(forged(Codec::zstd, prose(900), 900, "not zstd at all"), "is not 900 bytes");
  auto parts = frame_of("some text");
  parts.stored.pop_back();
  expect_corrupt(parts, "8 bytes stored, its header says 9");
}

TEST(FrameTest, OutputMustHaveRoom) {
  const auto parts = frame_of(prose(1000));
  FrameDecoder decoder;
  std::string out(999, '\0');
  EXPECT_FALSE(decoder.decode(parts.header, parts.stored, out));
}

TEST(FrameHeaderTest, EveryFieldIsChecked) {
  FrameHeader good;
  good.id = ChunkId::of(std::string_view("x"));
  good.codec = Codec::zstd;
  good.raw_bytes = 1000;
  good.stored_bytes = 500;
  std::string bytes(kFrameHeaderBytes, '\0');
  encode_header(good, std::span<char, kFrameHeaderBytes>(bytes.data(), kFrameHeaderBytes));
  ASSERT_EQ(decode_header(bytes).value(), good);
  const auto expect_refused = [&](std::size_t at, std::string_view put, std::string_view why) {
    auto bad = bytes;
    bad.replace(at, put.size(), put);
    const auto result = decode_header(bad);
    ASSERT_FALSE(result) << at;
    EXPECT_EQ(result.error().code, ErrorCode::corrupt);
    EXPECT_THAT(result.error().message, HasSubstr(std::string(why)));
  };
  expect_refused(0, "EDF2", "EDF1");
  expect_refused(4, "\x02", "codec");
  for (const std::size_t reserved : {5, 6, 7}) expect_refused(reserved, "\x01", "codec");
  expect_refused(8, std::string_view("\0\0\0\0", 4), "raw_bytes 0");
  expect_refused(8, std::string_view("\x01\0\x01\0", 4), "raw_bytes 65537");
  expect_refused(12, std::string_view("\0\0\0\0", 4), "stored_bytes 0");
  expect_refused(12, std::string_view("\xe9\x03\0\0", 4), "stored_bytes 1001");
  expect_refused(4, std::string_view("\0", 1), "stored_bytes 500");
  expect_refused(24, std::string(32, '\0'), "all zeros");
  EXPECT_FALSE(decode_header(std::string_view(bytes).substr(1)));
}

class FrameReaderTest : public ::testing::Test {
 protected:
  FrameReaderTest() {
    FrameEncoder encoder;
    for (int i = 0; i < 20; ++i) {
      raws_.push_back(i % 3 == 0 ? noise(1 + static_cast<std::size_t>(i) * 997, static_cast<unsigned>(i))
                                 : prose(1 + static_cast<std::size_t>(i) * 3001));
      EXPECT_TRUE(encoder.append(raws_.back(), stream_));
    }
  }

  Result<> take(const FrameHeader& header, std::span<const char> stored) {
    std::string out(header.raw_bytes, '\0');
    if (auto ok = decoder_.decode(header, stored, out); !ok) return ok;
    got_.push_back(out);
    return {};
  }
  FrameReader reader() {
    return FrameReader([this](const FrameHeader& h, std::span<const char> s) { return take(h, s); });
  }

  FrameDecoder decoder_;
  std::vector<std::string> raws_, got_;
  std::string stream_;
};

TEST_F(FrameReaderTest, PiecesMayBeOfAnySize) {
  for (const std::size_t piece : {1, 2, 55, 56, 57, 100, 4096, 65536, 10'000'000}) {
    got_.clear();
    auto reader = this->reader();
    for (std::size_t at = 0; at < stream_.size(); at += piece) {
      const auto ok = reader.feed(std::string_view(stream_).substr(at, piece));
      ASSERT_TRUE(ok) << ok.error().message;
    }
    EXPECT_TRUE(reader.finish());
    EXPECT_EQ(got_, raws_) << "pieces of " << piece;
  }
}

TEST_F(FrameReaderTest, WholeFramesAreNotCopied) {
  std::vector<const char*> places;
  FrameReader reader([&](const FrameHeader&, std::span<const char> stored) -> Result<> {
    places.push_back(stored.data());
    return {};
  });
  ASSERT_TRUE(reader.feed(stream_));
  for (const char* place : places) {
    EXPECT_TRUE(place >= stream_.data() && place < stream_.data() + stream_.size());
  }
}

TEST_F(FrameReaderTest, CutStreamIsFound) {
  for (const std::size_t cut : {std::size_t{1}, std::size_t{30}, std::size_t{5000}}) {
    auto reader = this->reader();
    ASSERT_TRUE(reader.feed(std::string_view(stream_).substr(0, stream_.size() - cut)));
    ASSERT_FALSE(reader.finish());
    EXPECT_EQ(reader.finish().error().code, ErrorCode::corrupt);
  }
}

TEST_F(FrameReaderTest, PassesErrorsOn) {
  FrameReader full([](const FrameHeader&, std::span<const char>) -> Result<> {
    return fail(ErrorCode::exhausted, "disk full");
  });
  EXPECT_EQ(full.feed(stream_).error().code, ErrorCode::exhausted);
  auto reader = this->reader();
  EXPECT_EQ(reader.feed(noise(100)).error().code, ErrorCode::corrupt);
}

}  // namespace
}  // namespace educloud::chunk
