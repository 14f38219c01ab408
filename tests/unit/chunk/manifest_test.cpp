#include "common/chunk/manifest.hpp"

#include <gmock/gmock.h>

#include <cstring>
#include <random>

namespace educloud::chunk {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

ChunkId id(std::uint64_t number) {
  return ChunkId::of(std::to_string(number));
}

constexpr std::uint64_t kDisk = 3 * kGroupBytes + kChunkBytes + 100;  // 194 chunks, the last of 100 bytes

DiskMap some_map() {
  DiskMap map(kDisk);
  for (const std::uint64_t chunk : {0, 5, 63, 128, 192, 193}) map.set(chunk, id(chunk));
  return map;
}

void put(std::string& bytes, std::size_t at, std::uint64_t value, std::size_t width) {
  std::memcpy(bytes.data() + at, &value, width);
}

void expect_refused(const std::string& bytes, std::string_view why, ErrorCode code = ErrorCode::corrupt) {
  const auto result = Manifest::decode(bytes);
  ASSERT_FALSE(result) << why;
  EXPECT_EQ(result.error().code, code) << result.error().message;
  EXPECT_THAT(result.error().message, HasSubstr(std::string(why)));
}

TEST(GeometryTest, CountsShortChunksAndGroups) {
  EXPECT_EQ(chunk_count(0), 0U);
  EXPECT_EQ(chunk_count(1), 1U);
  EXPECT_EQ(chunk_count(kChunkBytes), 1U);
  EXPECT_EQ(chunk_count(kChunkBytes + 1), 2U);
  EXPECT_EQ(group_count(0), 0U);
  EXPECT_EQ(group_count(kDisk), 4U);
  EXPECT_EQ(group_count(kMaxDiskBytes), 4U << 20);
  EXPECT_EQ(chunks_in_group(kDisk, 0), 64U);
  EXPECT_EQ(chunks_in_group(kDisk, 3), 2U);
  EXPECT_EQ(chunks_in_group(kDisk, 4), 0U);
  EXPECT_EQ(chunk_length(kDisk, 192), kChunkBytes);
  EXPECT_EQ(chunk_length(kDisk, 193), 100U);
  EXPECT_EQ(chunk_length(kDisk, 194), 0U);
}

TEST(GroupTest, ComesBack) {
  Group group;
  for (const std::size_t i : {std::size_t{0}, std::size_t{1}, std::size_t{63}}) group.chunks[i] = id(i);
  const auto bytes = group.encode();
  EXPECT_EQ(bytes.size(), 8U + 3 * 32);
  EXPECT_EQ(Group::decode(bytes, 64).value(), group);
  group.chunks.fill(id(7));
  EXPECT_EQ(group.encode().size(), kMaxGroupBytes);
  EXPECT_EQ(Group::decode(group.encode(), 64).value(), group);
}

TEST(GroupTest, RefusesLies) {
  Group group;
  group.chunks[3] = id(3);
  const auto bytes = group.encode();
  const auto refused = [](const std::string& data, std::uint32_t count) {
    const auto result = Group::decode(data, count);
    EXPECT_FALSE(result);
    return result ? std::string() : result.error().message;
  };
  EXPECT_TRUE(Group::decode(bytes, 4));
  EXPECT_THAT(refused(bytes, 3), HasSubstr("beyond the disk"));
  EXPECT_THAT(refused(bytes.substr(0, 7), 64), HasSubstr("inside its bitmap"));
  EXPECT_THAT(refused(std::string(8, '\0'), 64), HasSubstr("nothing but holes"));
  EXPECT_THAT(refused(bytes + "x", 64), HasSubstr("do not fit"));
  EXPECT_THAT(refused(bytes.substr(0, 39), 64), HasSubstr("do not fit"));
  EXPECT_THAT(refused(bytes.substr(0, 8) + std::string(32, '\0'), 64), HasSubstr("id of a hole"));
}

TEST(ManifestTest, ComesBack) {
  const auto manifest = some_map().manifest();
  EXPECT_EQ(manifest.groups.size(), 3U);
  EXPECT_EQ(Manifest::decode(manifest.encode()).value(), manifest);
  EXPECT_EQ(manifest.digest(), ChunkId::of(manifest.encode()));
}

TEST(ManifestTest, DataBytesKnowTheShortLastChunk) {
  const auto map = some_map();
  EXPECT_EQ(map.data_bytes(), 5 * kChunkBytes + 100);
  EXPECT_EQ(map.data_chunks(), 6U);
  EXPECT_EQ(map.manifest().data_bytes, 5 * kChunkBytes + 100);
}

TEST(ManifestTest, DisksOfNoByteAndOneByte) {
  const DiskMap nothing(0);
  EXPECT_EQ(DiskMap::deserialize(nothing.serialize()).value().disk_bytes(), 0U);
  EXPECT_THAT(nothing.manifest().groups, IsEmpty());
  DiskMap one(1);
  EXPECT_EQ(DiskMap::deserialize(one.serialize()).value().data_bytes(), 0U);
  one.set(0, ChunkId::of(std::string_view("x")));
  one.set(1, id(1));  // beyond the disk
  const auto back = DiskMap::deserialize(one.serialize());
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(back->data_bytes(), 1U);
  EXPECT_EQ(back->at(0), ChunkId::of(std::string_view("x")));
  EXPECT_TRUE(back->at(1).is_hole());
}

TEST(ManifestTest, LiesAboutSizesAreRefused) {
  const auto bytes = some_map().manifest().encode();
  auto bad = bytes;
  put(bad, 8, kGroupBytes, 8);
  expect_refused(bad, "group 2 is beyond the disk's 1");
  bad = bytes;
  put(bad, 8, kMaxDiskBytes + 1, 8);
  expect_refused(bad, "the limit is", ErrorCode::too_large);
  bad = bytes;
  put(bad, 8, ~std::uint64_t{0}, 8);
  expect_refused(bad, "the limit is", ErrorCode::too_large);
  // Groups 0 and 2 are whole, group 3 has a chunk and 100 bytes.
  for (const std::uint64_t data : {std::uint64_t{0}, 2 * std::uint64_t{kChunkBytes} + 99,
                                   2 * kGroupBytes + kChunkBytes + 101, ~std::uint64_t{0}}) {
    bad = bytes;
    put(bad, 16, data, 8);
    expect_refused(bad, "data_bytes");
  }
  bad = bytes;
  put(bad, 24, 4, 4);
  expect_refused(bad, "do not fit 4 groups");
  put(bad, 24, 0xffffffff, 4);
  expect_refused(bad, "do not fit");
}

TEST(ManifestTest, OverlapsAndDisorderAreRefused) {
  const auto bytes = some_map().manifest().encode();
  auto bad = bytes;
  put(bad, 32 + 36, 0, 4);  // the second group's index
  expect_refused(bad, "overlap");
  put(bad, 32 + 36, 3, 4);
  expect_refused(bad, "overlap");
  bad = bytes;
  bad.replace(36, 32, std::string(32, '\0'));
  expect_refused(bad, "id of a hole");
}

TEST(ManifestTest, OtherFilesAreRefused) {
  const auto bytes = some_map().manifest().encode();
  expect_refused("", "inside its header");
  expect_refused(bytes.substr(0, 31), "inside its header");
  expect_refused("EDM2" + bytes.substr(4), "EDM1");
  for (const std::size_t at : {4, 5, 6, 7, 28, 31}) {
    auto bad = bytes;
    bad[at] = static_cast<char>(bad[at] + 1);
    expect_refused(bad, "reserved");
  }
  expect_refused(bytes + "x", "do not fit");
  expect_refused(bytes.substr(0, bytes.size() - 1), "do not fit");
  expect_refused(std::string(kMaxManifestBytes + 1, 'E'), "limit", ErrorCode::too_large);
}

TEST(ManifestTest, AMillionHoles) {
  // Every second chunk of a disk is a hole: 2^20 runs of data and as many holes.
  DiskMap map(std::uint64_t{2 << 20} * kChunkBytes);
  const auto data = id(1);
  for (std::uint64_t chunk = 0; chunk < 2 << 20; chunk += 2) map.set(chunk, data);
  EXPECT_EQ(map.data_chunks(), 1U << 20);
  const auto text = map.serialize();
  const auto back = DiskMap::deserialize(text);
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(back->groups(), map.groups());
}

TEST(DiskMapTest, HolesLeaveNothingBehind) {
  auto map = some_map();
  map.set(128, {});
  EXPECT_EQ(map.groups().size(), 2U);
  map.set(129, {});
  for (const std::uint64_t chunk : {0, 5, 63, 192, 193}) map.set(chunk, {});
  EXPECT_THAT(map.groups(), IsEmpty());
  EXPECT_EQ(map.manifest(), DiskMap(kDisk).manifest());
}

TEST(DiskMapTest, GroupsMustFit) {
  const auto full = some_map();
  DiskMap map(kDisk);
  const auto encoded = full.groups().at(3).encode();
  EXPECT_TRUE(map.add_group(3, encoded));
  EXPECT_THAT(map.add_group(3, encoded).error().message, HasSubstr("already"));
  EXPECT_THAT(map.add_group(4, encoded).error().message, HasSubstr("beyond the disk"));
  EXPECT_THAT(DiskMap(0).add_group(0, encoded).error().message, HasSubstr("beyond the disk"));
  EXPECT_THAT(map.add_group(0, encoded.substr(1)).error().message, HasSubstr("group 0"));
}

TEST(DiskMapTest, FileComesBackOrIsRefused) {
  const auto map = some_map();
  const auto text = map.serialize();
  const auto back = DiskMap::deserialize(text);
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(back->groups(), map.groups());
  EXPECT_EQ(back->manifest().digest(), map.manifest().digest());
  EXPECT_FALSE(DiskMap::deserialize(text + "x"));
  // Whatever is cut or flipped is found, or leads to another digest, which the caller compares.
  for (std::size_t size = 0; size < text.size(); ++size) {
    EXPECT_FALSE(DiskMap::deserialize(std::string_view(text).substr(0, size))) << size;
  }
  for (std::size_t bit = 0; bit < text.size() * 8; ++bit) {
    auto bad = text;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << (bit % 8)));
    const auto result = DiskMap::deserialize(bad);
    EXPECT_TRUE(!result || result->manifest().digest() != map.manifest().digest()) << bit;
  }
}

TEST(DiskMapTest, DataBytesAreProven) {
  auto text = some_map().serialize();
  put(text, 4 + 16, 6 * kChunkBytes, 8);  // possible by the groups' number, not by their content
  EXPECT_THAT(DiskMap::deserialize(text).error().message, HasSubstr("data_bytes says 393216"));
}

TEST(DiskMapTest, WhatDiffers) {
  const auto old = some_map();
  auto now = old;
  now.set(6, id(6));
  now.set(63, {});
  now.set(128, {});
  now.set(193, id(1000));
  EXPECT_THAT(now.chunks_differing(old), ElementsAre(6, 63, 128, 193));
  EXPECT_THAT(now.chunks_differing(now), IsEmpty());
  const auto wanted = now.manifest();
  EXPECT_THAT(old.groups_differing(wanted), ElementsAre(wanted.groups[0], wanted.groups[1]));
  EXPECT_THAT(now.groups_differing(wanted), IsEmpty());
  EXPECT_EQ(DiskMap(kDisk).groups_differing(wanted), wanted.groups);
  EXPECT_THAT(now.chunks_differing(DiskMap(0)), ElementsAre(0, 5, 6, 192, 193));
}

TEST(DiskMapTest, GrownAndShrunkDisks) {
  const auto old = some_map();
  DiskMap longer(kDisk + kGroupBytes), shorter(kChunkBytes);
  for (const std::uint64_t chunk : {0, 5, 63, 128, 192}) longer.set(chunk, id(chunk));
  longer.set(193, id(2000));
  longer.set(250, id(250));
  EXPECT_THAT(longer.chunks_differing(old), ElementsAre(193, 250));
  EXPECT_THAT(shorter.chunks_differing(old), ElementsAre(0));
  shorter.set(0, id(0));
  EXPECT_THAT(shorter.chunks_differing(old), IsEmpty());
}

TEST(DiskMapTest, RandomMapsDifferWhereTheirChunksDo) {
  std::mt19937_64 random(42);
  for (int round = 0; round < 50; ++round) {
    DiskMap a(random() % (8 * kGroupBytes)), b(random() % (8 * kGroupBytes));
    for (int i = 0; i < 300; ++i) {
      a.set(random() % 512, random() % 3 == 0 ? ChunkId{} : id(random() % 4));
      b.set(random() % 512, random() % 3 == 0 ? ChunkId{} : id(random() % 4));
    }
    std::vector<std::uint64_t> expected;
    for (std::uint64_t i = 0; i < chunk_count(a.disk_bytes()); ++i) {
      if (a.at(i) != b.at(i)) expected.push_back(i);
    }
    EXPECT_EQ(a.chunks_differing(b), expected);
    EXPECT_EQ(DiskMap::deserialize(a.serialize()).value().groups(), a.groups());
  }
}

}  // namespace
}  // namespace educloud::chunk
