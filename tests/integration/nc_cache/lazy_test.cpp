#include "integration/nc_cache/node.hpp"

namespace educloud::nc {
namespace {

class Lazy : public NodeCacheTest {};

TEST_F(Lazy, ReadsWhatIsNotThereYetAndLaterFromTheFile) {
  auto v1 = disk("v1", 128 * kMiB);
  v1.fill(1, 80);
  v1.put(1900, 5);
  const auto digest = cc_.add(kImage, 1, v1);
  cc_.bytes_per_s = 20 * kMiB;
  Node node(cc_, "nc1", prefix("nc1"));
  auto reader = node.cache().open_lazily(node.request(1, digest), {});
  ASSERT_TRUE(reader) << reader.error().message;
  EXPECT_EQ((*reader)->disk_bytes(), v1.bytes());
  EXPECT_FALSE((*reader)->is_complete());

  const sys::Fd fd(::open(v1.path().c_str(), O_RDONLY | O_CLOEXEC));
  const auto expect_read = [&](std::uint64_t offset, std::size_t length) {
    std::string mine(length, 'x'), theirs(length, 'y');
    const auto read = (*reader)->read(offset, mine, {});
    ASSERT_TRUE(read) << read.error().message;
    ASSERT_EQ(::pread(fd.get(), theirs.data(), length, static_cast<off_t>(offset)),
              static_cast<ssize_t>(length));
    EXPECT_EQ(mine, theirs) << offset;
  };
  const auto begin = std::chrono::steady_clock::now();
  expect_read(1900 * kChunk + 512, 4096);  // near the end: long before its turn
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(3));
  EXPECT_FALSE((*reader)->is_complete());
  expect_read(0, 1 << 20);
  expect_read(kChunk - 100, 3 * kChunk);
  EXPECT_TRUE((*reader)->read(v1.bytes(), std::span<char>(), {}));
  std::string one(1, 'x');
  EXPECT_EQ((*reader)->read(v1.bytes(), one, {}).error().code, ErrorCode::invalid_argument);

  cc_.bytes_per_s = 0;
  ASSERT_TRUE(node.fill(1, digest));
  EXPECT_TRUE((*reader)->is_complete());
  for (std::uint64_t at = 0; at < v1.bytes(); at += 8 * kMiB) expect_read(at, 64 * 1024);
  auto again = node.cache().open_lazily(node.request(1, digest), {});
  ASSERT_TRUE(again);
  EXPECT_TRUE((*again)->is_complete());
  EXPECT_EQ((*again)->disk_bytes(), v1.bytes());
}

TEST_F(Lazy, ReadsADeltaWhileItArrives) {
  auto v1 = disk("v1", 32 * kMiB);
  v1.fill(1, 80);
  const auto first = cc_.add(kImage, 1, v1);
  auto v2 = like("v2", v1);
  v2.change(3, 10);
  const auto second = cc_.add(kImage, 2, v2);
  Node node(cc_, "nc1", prefix("nc1"));
  ASSERT_TRUE(node.fill(1, first));
  cc_.bytes_per_s = 4 * kMiB;
  auto reader = node.cache().open_lazily(node.request(2, second), {});
  ASSERT_TRUE(reader) << reader.error().message;
  const auto text = educloud::testing::slurp(v2.path());
  std::string all(v2.bytes(), 'x');
  for (std::uint64_t at = 0; at < v2.bytes(); at += kMiB) {
    const auto read = (*reader)->read(at, std::span(all).subspan(at, kMiB), {});
    ASSERT_TRUE(read) << read.error().message;
  }
  EXPECT_TRUE(all == text);
}

TEST_F(Lazy, AReadEndsWhenItIsStopped) {
  auto v1 = disk("v1", 32 * kMiB);
  v1.fill(1, 100);
  const auto digest = cc_.add(kImage, 1, v1);
  cc_.bytes_per_s = 1;
  Node node(cc_, "nc1", prefix("nc1"));
  std::stop_source opening;
  std::jthread later([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    opening.request_stop();
  });
  // Even the groups do not come.
  const auto reader = node.cache().open_lazily(node.request(1, digest), opening.get_token());
  ASSERT_FALSE(reader);
  EXPECT_EQ(reader.error().code, ErrorCode::cancelled);
}

}  // namespace
}  // namespace educloud::nc
