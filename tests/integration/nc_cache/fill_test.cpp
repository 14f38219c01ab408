#include <sys/stat.h>

#include "common/sys/process.hpp"
#include "integration/nc_cache/node.hpp"

namespace educloud::nc {
namespace {

class Fill : public NodeCacheTest {};

TEST_F(Fill, BringsAVersionByteForByteAndStaysSparse) {
  auto v1 = disk("v1", 96 * kMiB);
  v1.fill(1, 40);
  const auto digest = cc_.add(kImage, 1, v1);
  Node node(cc_, "nc1", prefix("nc1"));
  std::uint64_t done = 0, total = 0;
  const auto filled = node.cache().fill(node.request(1, digest),
                                        [&](std::uint64_t now, std::uint64_t of) {
                                          EXPECT_GE(now, done);
                                          done = now;
                                          total = of;
                                        },
                                        {});
  ASSERT_TRUE(filled) << filled.error().message;
  EXPECT_EQ(first_difference(node, 1, v1), std::nullopt);
  EXPECT_EQ(done, total);
  EXPECT_EQ(total, cc_.data_bytes(kImage, 1));

  struct stat info {};
  ASSERT_EQ(::stat(node.machine(1).c_str(), &info), 0);
  EXPECT_EQ(static_cast<std::uint64_t>(info.st_size), v1.bytes());
  EXPECT_LE(static_cast<std::uint64_t>(info.st_blocks) * 512, cc_.data_bytes(kImage, 1) + kMiB);
  EXPECT_TRUE(node.staging_is_empty());
  const auto published = node.store().find(kImage, 1);
  ASSERT_TRUE(published);
  EXPECT_EQ(published->format, "raw");
  EXPECT_EQ(published->digest, digest.hex());
  EXPECT_EQ(published->size_bytes, cc_.data_bytes(kImage, 1));
  const auto map = node.cache().map(kImage, 1);
  ASSERT_TRUE(map);
  EXPECT_EQ(map->manifest().digest(), digest);
  // Again: nothing to do.
  const auto before = cc_.sent_chunks.load();
  EXPECT_TRUE(node.fill(1, digest));
  EXPECT_EQ(cc_.sent_chunks, before);
}

TEST_F(Fill, DisksOfOddSizes) {
  Node node(cc_, "nc1", prefix("nc1"));
  int version = 1;
  for (const std::uint64_t bytes : {std::uint64_t{1}, std::uint64_t{511}, kChunk - 1, kChunk, kChunk + 1,
                                    3 * kMiB + 12'345, 4 * kMiB + 512}) {
    auto odd = disk("odd" + std::to_string(version), bytes);
    for (std::uint64_t at = 0; at < chunk::chunk_count(bytes); ++at) odd.put(at, 10 + at);
    const auto digest = cc_.add(kImage, version, odd);
    const auto filled = node.fill(version, digest);
    ASSERT_TRUE(filled) << bytes << ": " << filled.error().message;
    EXPECT_EQ(first_difference(node, version, odd), std::nullopt) << bytes;
    if (node.store().find(kImage, version)->format == "raw") {
      EXPECT_EQ(std::filesystem::file_size(node.machine(version)), bytes);
    }
    ++version;
  }
}

TEST_F(Fill, ADiskOfHolesOnly) {
  const auto empty = disk("empty", 64 * kMiB);
  const auto digest = cc_.add(kImage, 1, empty);
  Node node(cc_, "nc1", prefix("nc1"));
  const auto filled = node.fill(1, digest);
  ASSERT_TRUE(filled) << filled.error().message;
  EXPECT_EQ(first_difference(node, 1, empty), std::nullopt);
  EXPECT_EQ(cc_.sent_chunks, 0U);
}

TEST_F(Fill, AnUpdateFetchesOnlyWhatChanged) {
  auto v1 = disk("v1", 64 * kMiB);
  v1.fill(1, 60);
  const auto first = cc_.add(kImage, 1, v1);
  auto v2 = like("v2", v1);
  v2.change(2, 4);
  v2.put(100, 77);
  v2.put(101, 77);  // the same content twice
  const auto second = cc_.add(kImage, 2, v2);

  Node node(cc_, "nc1", prefix("nc1"));
  ASSERT_TRUE(node.fill(1, first));
  cc_.sent_bytes = 0;
  const auto filled = node.fill(2, second);
  ASSERT_TRUE(filled) << filled.error().message;
  EXPECT_EQ(first_difference(node, 2, v2), std::nullopt);
  EXPECT_EQ(first_difference(node, 1, v1), std::nullopt);
  EXPECT_LT(cc_.sent_bytes, v1.bytes() / 10);

  const auto published = node.store().find(kImage, 2);
  ASSERT_TRUE(published);
  if (published->format == "qcow2") {  // else the file system shares blocks
    EXPECT_EQ(published->stands_on, kImage + "/1");
    EXPECT_EQ(node.store().remove(kImage, 1).error().code, ErrorCode::conflict);
    EXPECT_TRUE(sys::run_checked(
        {.argv = {"qemu-img", "compare", "-f", "qcow2", "-F", "raw", node.machine(2), v2.path()}}));
    EXPECT_TRUE(sys::run_checked({.argv = {"qemu-img", "check", "-f", "qcow2", node.machine(2)}}));
  }
}

TEST_F(Fill, AnotherImageWithMostlyTheSameContentIsMadeFromIt) {
  auto v1 = disk("v1", 64 * kMiB);
  v1.fill(1, 60);
  const auto first = cc_.add(kImage, 1, v1);
  auto other = like("other", v1);
  other.put(5, 4242);
  const auto second = cc_.add("IMG00000002", 7, other);
  Node node(cc_, "nc1", prefix("nc1"));
  ASSERT_TRUE(node.fill(1, first));
  cc_.sent_bytes = 0;
  ASSERT_TRUE(node.fill(7, second, "IMG00000002"));
  EXPECT_EQ(first_difference(node, 7, other, "IMG00000002"), std::nullopt);
  EXPECT_LT(cc_.sent_bytes, kMiB);
}

TEST_F(Fill, AGrownAndAShrunkDisk) {
  auto v1 = disk("v1", 16 * kMiB);
  v1.fill(1, 80);
  auto grown = disk("grown", 24 * kMiB + 512);
  for (std::uint64_t at = 0; at < chunk::chunk_count(v1.bytes()); ++at) grown.put(at, 1'000'003 + at);
  grown.put(chunk::chunk_count(grown.bytes()) - 1, 9);
  auto shrunk = disk("shrunk", 8 * kMiB + 1024);
  for (std::uint64_t at = 0; at < chunk::chunk_count(shrunk.bytes()); at += 2) shrunk.put(at, 1'000'003 + at);
  const auto first = cc_.add(kImage, 1, v1);
  const auto second = cc_.add(kImage, 2, grown);
  const auto third = cc_.add(kImage, 3, shrunk);
  Node node(cc_, "nc1", prefix("nc1"));
  ASSERT_TRUE(node.fill(1, first));
  ASSERT_TRUE(node.fill(2, second));
  ASSERT_TRUE(node.fill(3, third));
  EXPECT_EQ(first_difference(node, 2, grown), std::nullopt);
  EXPECT_EQ(first_difference(node, 3, shrunk), std::nullopt);
}

TEST_F(Fill, SeveralCallersShareOneFill) {
  auto v1 = disk("v1", 64 * kMiB);
  v1.fill(1, 90);
  const auto digest = cc_.add(kImage, 1, v1);
  cc_.peers_enabled = false;
  Node node(cc_, "nc1", prefix("nc1"));
  {
    std::vector<std::jthread> callers;
    for (int i = 0; i < 4; ++i) callers.emplace_back([&] { EXPECT_TRUE(node.fill(1, digest)); });
  }
  EXPECT_LE(cc_.sent_bytes, cc_.data_bytes(kImage, 1) + kMiB);
}

TEST_F(Fill, OldBasesStayWhileStoodOnAndGoWhenRoomIsNeeded) {
  CacheOptions options;
  options.max_layers = 100;
  Node node(cc_, "nc1", prefix("nc1"), options);
  std::vector<DiskFile> disks;
  disks.push_back(disk("v1", 16 * kMiB));
  disks[0].fill(1, 80);
  for (int version = 1; version <= 3; ++version) {
    if (version > 1) {
      disks.push_back(like("v" + std::to_string(version), disks.back()));
      disks.back().change(static_cast<std::uint64_t>(version), 3);
    }
    ASSERT_TRUE(node.fill(version, cc_.add(kImage, version, disks.back())));
  }
  node.cache().set_in_use({{kImage, 3}});
  node.cache().make_room(~0ULL >> 1);
  EXPECT_EQ(first_difference(node, 3, disks[2]), std::nullopt);
  // Nobody uses it any more, and a restart forgets who was just given it.
  node.stop();
  node.start();
  node.cache().make_room(~0ULL >> 1);
  EXPECT_TRUE(node.store().list()->empty());
}

TEST_F(Fill, WhoWaitsGoesBeforeWhoPrefetches) {
  CacheOptions options;
  options.max_fills = 1;
  Node node(cc_, "nc1", prefix("nc1"), options);
  std::vector<chunk::ChunkId> digests;
  for (int version = 1; version <= 3; ++version) {
    auto one = disk("v" + std::to_string(version), 8 * kMiB);
    one.fill(static_cast<std::uint64_t>(version), 100);
    digests.push_back(cc_.add(kImage, version, one));
  }
  cc_.bytes_per_s = 8 * kMiB;
  std::mutex mutex;
  std::vector<int> order;
  const auto fill = [&](int version, transfer::Priority priority) {
    auto request = node.request(version, digests[static_cast<std::size_t>(version) - 1]);
    request.priority = priority;
    const auto filled = node.cache().fill(request, {}, {});
    EXPECT_TRUE(filled) << filled.error().message;
    const std::lock_guard lock(mutex);
    order.push_back(version);
  };
  std::vector<std::jthread> callers;
  callers.emplace_back(fill, 1, transfer::Priority::prefetch);
  while (cc_.sent_chunks == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  callers.emplace_back(fill, 2, transfer::Priority::prefetch);
  std::this_thread::sleep_for(
      std::chrono::milliseconds(50));  // in line before the other, which must not help it
  callers.emplace_back(fill, 3, transfer::Priority::user);
  callers.clear();
  EXPECT_EQ(order, (std::vector<int>{1, 3, 2}));
}

TEST_F(Fill, StoppingEndsAllCallers) {
  CacheOptions options;
  options.max_fills = 1;
  Node node(cc_, "nc1", prefix("nc1"), options);
  auto one = disk("v1", 8 * kMiB);
  one.fill(1, 100);
  const auto first = cc_.add(kImage, 1, one);
  const auto second = cc_.add("IMG00000002", 1, one);
  cc_.bytes_per_s = kMiB;
  std::vector<std::jthread> callers;
  callers.emplace_back([&] { EXPECT_EQ(node.fill(1, first).error().code, ErrorCode::cancelled); });
  while (cc_.sent_chunks == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  callers.emplace_back(
      [&] { EXPECT_EQ(node.fill(1, second, "IMG00000002").error().code, ErrorCode::cancelled); });
  node.cache().stop();
  callers.clear();
  EXPECT_EQ(node.fill(1, first).error().code, ErrorCode::cancelled);
}

TEST_F(Fill, DeepChainsAreFlattenedWhenNobodyUsesThem) {
  CacheOptions options;
  options.max_layers = 2;
  Node node(cc_, "nc1", prefix("nc1"), options);
  auto last = disk("v1", 16 * kMiB);
  last.fill(1, 80);
  ASSERT_TRUE(node.fill(1, cc_.add(kImage, 1, last)));
  for (int version = 2; version <= 4; ++version) {
    auto next = like("v" + std::to_string(version), last);
    next.change(static_cast<std::uint64_t>(version), 3);
    ASSERT_TRUE(node.fill(version, cc_.add(kImage, version, next)));
    last = std::move(next);
  }
  // What was just handed out is left alone for a minute: a restart forgets that.
  node.stop();
  node.start();
  node.cache().set_in_use({});
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (node.store().find(kImage, 4)->format != "raw" && std::chrono::steady_clock::now() < deadline)
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(node.store().find(kImage, 4)->format, "raw");
  EXPECT_EQ(first_difference(node, 4, last), std::nullopt);
  EXPECT_EQ(node.cache().layers(kImage, 4)->size(), 1U);
}

}  // namespace
}  // namespace educloud::nc
