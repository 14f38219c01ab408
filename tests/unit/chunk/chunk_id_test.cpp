#include "common/chunk/chunk_id.hpp"

#include <gmock/gmock.h>

#include <thread>

namespace educloud::chunk {
namespace {

using ::testing::HasSubstr;

constexpr std::string_view kAbc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

TEST(ChunkIdTest, IsSha256OfTheBytes) {
  EXPECT_EQ(ChunkId::of(std::string_view("abc")).hex(), kAbc);
  EXPECT_EQ(ChunkId::of({}).hex(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_FALSE(ChunkId::of(std::string(kChunkBytes, '\0')).is_hole());
}

TEST(ChunkIdTest, IsTheSameInEveryThread) {
  std::vector<std::jthread> threads;
  std::array<ChunkId, 8> ids;
  for (auto& id : ids) threads.emplace_back([&id] { id = ChunkId::of(std::string_view("abc")); });
  threads.clear();
  for (const auto& id : ids) EXPECT_EQ(id.hex(), kAbc);
}

TEST(ChunkIdTest, ParsesItsOwnHex) {
  const auto id = ChunkId::parse(kAbc);
  ASSERT_TRUE(id);
  EXPECT_EQ(id->hex(), kAbc);
  EXPECT_TRUE(ChunkId{}.is_hole());
}

TEST(ChunkIdTest, RefusesOtherTexts) {
  for (const std::string& bad : {std::string(), std::string(kAbc.substr(1)), std::string(kAbc) + "0",
                                 "BA7816BF" + std::string(kAbc.substr(8)), "g" + std::string(kAbc.substr(1)),
                                 " " + std::string(kAbc.substr(1)), std::string(64, '\0')}) {
    const auto id = ChunkId::parse(bad);
    ASSERT_FALSE(id) << bad;
    EXPECT_EQ(id.error().code, ErrorCode::invalid_argument);
  }
}

TEST(IdListTest, ComesBack) {
  const std::vector<ChunkId> ids{ChunkId::of(std::string_view("a")), ChunkId::of(std::string_view("b"))};
  const auto text = encode_ids(ids);
  EXPECT_EQ(text.size(), 64U);
  EXPECT_EQ(decode_ids(text, 2).value(), ids);
  EXPECT_TRUE(decode_ids("", 0).value().empty());
}

TEST(IdListTest, RefusesCutOnesTooManyAndHoles) {
  const auto text = encode_ids(std::vector<ChunkId>(3, ChunkId::of(std::string_view("a"))));
  EXPECT_THAT(decode_ids(text.substr(1), 9).error().message, HasSubstr("multiple of 32"));
  EXPECT_THAT(decode_ids(text, 2).error().message, HasSubstr("limit is 2"));
  EXPECT_THAT(decode_ids(std::string(32, '\0'), 9).error().message, HasSubstr("all zeros"));
}

}  // namespace
}  // namespace educloud::chunk
