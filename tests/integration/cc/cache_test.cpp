#include "cc/relay/image_cache.hpp"

#include <gtest/gtest.h>

#include "common/transfer/fetcher.hpp"
#include "integration/cc/fake_walrus.hpp"

namespace educloud::test {
namespace {

const std::string kImage = "IMG0000000a";

/// A cache and a server for it in this process, so that its options can be small.
class CacheTest : public ::testing::Test {
 protected:
  void start(std::uint64_t max_bytes, std::chrono::milliseconds in_use) {
    stop();
    store_ = *image::VersionStore::open(dir_.path());
    cc::ImageCache::Options options;
    options.walrus = *http::Url::parse(walrus_.url());
    options.data_key = kDataKey;
    options.host = "cc1";
    options.max_bytes = max_bytes;
    options.in_use = in_use;
    options.retry_after = std::chrono::milliseconds{100};
    cache_ = std::make_unique<cc::ImageCache>(*store_, clock_, options);
    http::Router router;
    cache_->add_routes(router);
    server_ = std::make_unique<http::Server>(http::ServerOptions{}, std::move(router));
    ASSERT_TRUE(server_->start());
  }
  void stop() {
    server_.reset();
    cache_.reset();
    store_.reset();
  }
  void TearDown() override { stop(); }

  Result<> fetch(int version, const std::string& digest, const std::string& node = "nc1",
                 std::chrono::seconds stall = std::chrono::seconds{20}) {
    const testing::TempDir dir;
    auto store = *image::VersionStore::open(dir.path());
    transfer::FetchRequest request;
    request.base = *http::Url::parse("http://127.0.0.1:" + std::to_string(server_->port()));
    request.imgid = kImage;
    request.version = version;
    request.digest = digest;
    request.grant = grant_for(node, "GET", transfer::raw_path(kImage, version));
    request.stall_timeout = stall;
    return transfer::fetch_version(*store, request);
  }
  int status(const std::string& target) {
    http::Client client(*http::Url::parse("http://127.0.0.1:" + std::to_string(server_->port())));
    auto answer = client.send({.target = target});
    return answer ? answer->status : -1;
  }

  SystemClock clock_;
  FakeWalrus walrus_;
  testing::TempDir dir_;
  std::unique_ptr<image::VersionStore> store_;
  std::unique_ptr<cc::ImageCache> cache_;
  std::unique_ptr<http::Server> server_;
};

TEST_F(CacheTest, ManyNodesAtOnceFetchAVersionFromWalrusOnce) {
  const auto digest = walrus_.add(kImage, 1, 8);
  start(1ull << 30, std::chrono::minutes{2});
  std::vector<std::thread> nodes;
  std::atomic<int> good{0};
  for (int i = 0; i < 4; ++i) {
    nodes.emplace_back([&, i] {
      auto ok = fetch(1, digest, "nc" + std::to_string(i));
      if (!ok) ADD_FAILURE() << ok.error().message;
      good += ok ? 1 : 0;
    });
  }
  for (auto& node : nodes) node.join();
  EXPECT_EQ(good, 4);
  EXPECT_EQ(walrus_.downloads, 1);
}

TEST_F(CacheTest, ARestartedCacheServesWithoutWalrus) {
  const auto digest = walrus_.add(kImage, 1);
  start(1ull << 30, std::chrono::minutes{2});
  ASSERT_TRUE(fetch(1, digest));
  start(1ull << 30, std::chrono::minutes{2});
  walrus_.stop();
  auto ok = fetch(1, digest);
  EXPECT_TRUE(ok) << ok.error().message;
}

TEST_F(CacheTest, WhatWasUsedLongestAgoMakesRoom) {
  std::vector<std::string> digests;
  for (int version = 1; version <= 3; ++version) digests.push_back(walrus_.add(kImage, version, 4));
  start(10ull << 20, std::chrono::milliseconds{0});  // room for two
  ASSERT_TRUE(fetch(1, digests[0]));
  ASSERT_TRUE(fetch(2, digests[1]));
  wait_until([&] { return !store_->eviction_candidates()->empty(); });
  ASSERT_TRUE(fetch(1, digests[0]));  // so 2 is the older one now
  ASSERT_TRUE(fetch(3, digests[2]));
  EXPECT_TRUE(store_->find(kImage, 1));
  EXPECT_FALSE(store_->find(kImage, 2));
  EXPECT_TRUE(store_->find(kImage, 3));
}

TEST_F(CacheTest, WhatIsInUseStaysAndTheNewcomerIsToldWhy) {
  const auto first = walrus_.add(kImage, 1, 4), second = walrus_.add(kImage, 2, 4);
  start(6ull << 20, std::chrono::minutes{2});
  ASSERT_TRUE(fetch(1, first));
  const auto refused = fetch(2, second);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::exhausted);
  EXPECT_NE(refused.error().message.find("cache_max_bytes"), std::string::npos) << refused.error().message;
  EXPECT_TRUE(store_->find(kImage, 1));
}

TEST_F(CacheTest, AVersionThatWalrusLacksFailsAtOnce) {
  start(1ull << 30, std::chrono::minutes{2});
  const auto missing = fetch(9, std::string(64, '0'));
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, ErrorCode::not_found) << missing.error().message;
}

TEST_F(CacheTest, AFetchGoesOnWhenWalrusIsBack) {
  const auto digest = walrus_.add(kImage, 1);
  walrus_.stop();
  start(1ull << 30, std::chrono::minutes{2});
  std::thread repair([&] {
    // Until the first attempt has failed, which the answer shows.
    wait_until([&] {
      const auto grant = grant_for("nc2", "GET", transfer::raw_path(kImage, 1));
      http::Client client(*http::Url::parse("http://127.0.0.1:" + std::to_string(server_->port())));
      auto answer = client.send({.target = transfer::raw_path(kImage, 1) + "?" + grant});
      return answer && answer->body.find("\"failed\"") != std::string::npos;
    });
    walrus_.start();
  });
  auto ok = fetch(1, digest);
  repair.join();
  EXPECT_TRUE(ok) << ok.error().message;
}

TEST_F(CacheTest, WithoutAGrantForExactlyThisNothingIsTold) {
  walrus_.add(kImage, 1);
  start(1ull << 30, std::chrono::minutes{2});
  const auto path = transfer::raw_path(kImage, 1);
  EXPECT_EQ(status(path), 403);
  EXPECT_EQ(status(path + "?" + grant_for("nc1", "GET", transfer::raw_path(kImage, 2))), 403);
  EXPECT_EQ(status(path + "?" + grant_for("nc1", "PUT", path)), 403);
  EXPECT_EQ(status(path + "?" + grant_for("nc1", "GET", path, std::string(64, 'b'))), 403);
  EXPECT_EQ(status("/images/../versions/1/raw"), 400);
  EXPECT_EQ(status("/images/IMGx/versions/1/raw"), 400);
  EXPECT_EQ(walrus_.downloads, 0);
}

}  // namespace
}  // namespace educloud::test
