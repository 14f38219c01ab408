#include <gmock/gmock.h>

#include "cli/image/disk_diff.hpp"
#include "cli/image/signed_version.hpp"

namespace educloud::cli {
namespace {

using nlohmann::json;

json answer() {
  return {{"imgid", "IMG0123abcd"},
          {"version", 3},
          {"url", "http://10.0.0.1:8001/images/IMG0123abcd/versions/3/raw"},
          {"manifest_url", "http://10.0.0.1:8001/images/IMG0123abcd/versions/3/manifest"},
          {"query", "node=user&expires=99&sig=abc"},
          {"digest", std::string(64, 'a')},
          {"size_bytes", 10},
          {"virtual_size_bytes", 20}};
}

TEST(SignedVersion, IsTakenApartAndChecked) {
  const auto version = parse_signed_version(answer());
  ASSERT_TRUE(version) << version.error().message;
  EXPECT_EQ(version->remote.base.host, "10.0.0.1");
  EXPECT_EQ(version->remote.base.port, 8001);
  EXPECT_EQ(version->remote.imgid, "IMG0123abcd");
  EXPECT_EQ(version->remote.version, 3);
  EXPECT_EQ(version->remote.grant, "node=user&expires=99&sig=abc");
  EXPECT_EQ(version->digest.hex(), std::string(64, 'a'));
  EXPECT_EQ(version->url,
            "http://10.0.0.1:8001/images/IMG0123abcd/versions/3/raw?node=user&expires=99&sig=abc");
  for (const auto& [key, bad] : std::vector<std::pair<std::string, json>>{
           {"imgid", "../x"},
           {"version", 0},
           {"version", -1},
           {"version", "3"},
           {"version", 4},
           {"url", "http://10.0.0.1:8001/other"},
           {"url", "nonsense/images/IMG0123abcd/versions/3/raw"},
           {"manifest_url", "http://evil/images/IMG0123abcd/versions/3/manifest"},
           {"query", ""},
           {"query", "node=user\r\nX: y"},
           {"digest", std::string(64, 'A')},
           {"digest", nullptr}}) {
    auto changed = answer();
    changed[key] = bad;
    EXPECT_FALSE(parse_signed_version(changed)) << key << " " << bad;
  }
  EXPECT_FALSE(parse_signed_version(json::array()));
}

chunk::ChunkId id(char letter) {
  return chunk::ChunkId::of(std::string(10, letter));
}

TEST(DiskDiff, CountsWhatIsTheSameChangedAddedAndRemoved) {
  constexpr std::uint64_t kChunk = chunk::kChunkBytes;
  chunk::DiskMap a(100 * kChunk), b(100 * kChunk + 5);
  for (const std::uint64_t at : {0, 1, 2, 70}) a.set(at, id('a'));
  b.set(0, id('a'));
  b.set(1, id('b'));
  b.set(70, id('a'));
  b.set(71, id('c'));
  b.set(100, id('d'));
  const auto diff = diff_disks(a, b);
  EXPECT_EQ(diff.same_bytes, 2 * kChunk);
  EXPECT_EQ(diff.changed_bytes, kChunk);
  EXPECT_EQ(diff.added_bytes, kChunk + 5);
  EXPECT_EQ(diff.removed_bytes, kChunk);
  const auto back = diff_disks(b, a);
  EXPECT_EQ(back.removed_bytes, kChunk + 5) << "what lay beyond the shorter disk";
  EXPECT_EQ(back.added_bytes, kChunk);
  const auto none = diff_disks(a, a);
  EXPECT_EQ(none.same_bytes, a.data_bytes());
  EXPECT_EQ(none.changed_bytes + none.added_bytes + none.removed_bytes, 0u);
}

}  // namespace
}  // namespace educloud::cli
