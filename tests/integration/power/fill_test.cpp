// A node's cache of images: a fill goes on from what is really on its disk, and what is shown is complete.
#include "integration/nc_cache/node.hpp"
#include "integration/power/cuts.hpp"

namespace educloud::nc {
namespace {

namespace fs = std::filesystem;
using educloud::testing::DiskRecorder;

class PowerFill : public NodeCacheTest {
 protected:
  /// Fills with breaks, at each of which what has come is marked.
  void fill_in_parts(Node& node, int version, const chunk::ChunkId& digest) {
    cc_.bytes_per_s = 60 * kMiB;
    for (int part = 0; part < 2; ++part) {
      std::stop_source stop;
      const auto until = cc_.sent_bytes + 4 * kMiB;
      const auto filled = node.cache().fill(
          node.request(version, digest),
          [&](std::uint64_t, std::uint64_t) {
            if (cc_.sent_bytes > until) stop.request_stop();
          },
          stop.get_token());
      if (!filled) {
        EXPECT_EQ(filled.error().code, ErrorCode::cancelled) << filled.error().message;
      }
    }
    cc_.bytes_per_s = 0;
    const auto filled = node.fill(version, digest);
    ASSERT_TRUE(filled) << filled.error().message;
  }
};

TEST_F(PowerFill, ACutFillGoesOnAndShowsNothingHalf) {
  auto v1 = disk("v1", 20 * kMiB);
  v1.fill(1, 70);
  auto v2 = like("v2", v1);
  v2.change(2, 20);
  const std::map<int, const DiskFile*> disks{{1, &v1}, {2, &v2}};
  const std::map<int, chunk::ChunkId> digests{{1, cc_.add(kImage, 1, v1)}, {2, cc_.add(kImage, 2, v2)}};
  CacheOptions options;
  options.peers = false;
  fs::create_directory(prefix("nc1"));
  DiskRecorder recorder(prefix("nc1"));
  std::map<int, std::size_t> filled_at;
  {
    Node node(cc_, "nc1", prefix("nc1"), options);
    for (const auto& [version, digest] : digests) {
      fill_in_parts(node, version, digest);
      filled_at[version] = recorder.position();
    }
  }
  const auto recording = recorder.stop();
  educloud::testing::expect_all_recorded(recording, prefix("nc1"));
  int saved = 0, unfinished = 0;
  for (const auto seed : educloud::testing::lives(1)) {
    SCOPED_TRACE("EDUCLOUD_POWER_SEED=" + std::to_string(seed));
    educloud::testing::cut_often(recording, seed, 40, [&](const fs::path& left, std::size_t position) {
      Node node(cc_, "nc1", left, options);
      for (const auto& [version, digest] : digests) {
        const bool shown = node.store().find(kImage, version).has_value();
        if (position >= filled_at[version]) {
          EXPECT_TRUE(shown) << version << " was told to be there";
        }
        if (shown) {
          EXPECT_EQ(first_difference(node, version, *disks.at(version)), std::nullopt) << version;
        }
        const auto before = cc_.sent_bytes.load();
        const auto filled = node.fill(version, digest);
        ASSERT_TRUE(filled) << version << ": " << filled.error().message;
        EXPECT_EQ(first_difference(node, version, *disks.at(version)), std::nullopt) << version;
        if (shown) continue;
        ++unfinished;
        saved += version == 1 && cc_.sent_bytes - before < cc_.data_bytes(kImage, 1) ? 1 : 0;
      }
    });
  }
  EXPECT_GT(unfinished, 10);
  EXPECT_GT(saved, 0) << "no mark was ever used";
}

}  // namespace
}  // namespace educloud::nc
