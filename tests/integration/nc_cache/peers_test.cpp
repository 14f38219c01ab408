#include <future>

#include "common/obs/metrics.hpp"
#include "integration/nc_cache/node.hpp"

namespace educloud::nc {
namespace {

class Peers : public NodeCacheTest {
 protected:
  void SetUp() override {
    v1_.fill(1, 70);
    digest_ = cc_.add(kImage, 1, v1_);
  }
  std::unique_ptr<Node> node(const std::string& name, CacheOptions options = {}) {
    return std::make_unique<Node>(cc_, name, prefix(name), std::move(options));
  }

  DiskFile v1_ = disk("v1", 256 * kMiB);
  chunk::ChunkId digest_;
};

TEST_F(Peers, ThreeNodesFetchAboutOneCopyFromTheCc) {
  cc_.bytes_per_s = 60 * kMiB;  // the cc's link is what is scarce
  std::vector<std::unique_ptr<Node>> nodes;
  for (const auto* name : {"nc1", "nc2", "nc3"}) nodes.push_back(node(name));
  {
    std::vector<std::jthread> fills;
    for (auto& one : nodes) {
      fills.emplace_back([&] {
        const auto filled = one->fill(1, digest_);
        EXPECT_TRUE(filled) << filled.error().message;
      });
    }
  }
  for (auto& one : nodes) EXPECT_EQ(first_difference(*one, 1, v1_), std::nullopt);
  const auto share = static_cast<double>(cc_.sent_bytes) / static_cast<double>(cc_.data_bytes(kImage, 1));
  std::printf("cc sent %.2f of one version\n", share);
  EXPECT_LT(share, 1.3);
}

TEST_F(Peers, ACompleteNeighbourGivesItsPart) {
  auto first = node("nc1");
  ASSERT_TRUE(first->fill(1, digest_));
  cc_.sent_bytes = 0;
  auto second = node("nc2");
  ASSERT_TRUE(second->fill(1, digest_));
  EXPECT_EQ(first_difference(*second, 1, v1_), std::nullopt);
  // The neighbour is home of about half of the groups.
  EXPECT_LT(cc_.sent_bytes, cc_.data_bytes(kImage, 1) * 3 / 4);
}

TEST_F(Peers, ADeadNeighbourIsDropped) {
  cc_.know("nc9", "http://127.0.0.1:1");
  cc_.pretend_member("nc9", kImage, 1);
  auto first = node("nc1");
  const auto begin = std::chrono::steady_clock::now();
  ASSERT_TRUE(first->fill(1, digest_));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
  EXPECT_EQ(first_difference(*first, 1, v1_), std::nullopt);
}

/// Says of every chunk that it is what was asked for, and sends something else.
class Liar : public transfer::ChunkSource {
 public:
  class Answer : public Reading {
   public:
    explicit Answer(std::vector<chunk::ChunkId> ids) : ids_(std::move(ids)) {}
    Result<transfer::Frame> frame(std::size_t i) override {
      auto text = std::make_shared<std::string>();
      const auto header = *encoder_.append(chunk_content(12, kChunk), *text);
      auto forged = header;
      forged.id = ids_[i];
      chunk::encode_header(forged,
                           std::span<char, chunk::kFrameHeaderBytes>(text->data(), chunk::kFrameHeaderBytes));
      return transfer::Frame(std::shared_ptr<const std::string>(std::move(text)));
    }

   private:
    chunk::FrameEncoder encoder_;
    std::vector<chunk::ChunkId> ids_;
  };
  Result<std::string> manifest(const transfer::ChunkCaller&, std::stop_token) override {
    return fail(ErrorCode::not_found, "no");
  }
  Result<std::unique_ptr<Reading>> read(const transfer::ChunkCaller&, std::vector<chunk::ChunkId> ids,
                                        std::stop_token) override {
    ++asked;
    return std::make_unique<Answer>(std::move(ids));
  }
  std::atomic<int> asked{0};
};

/// Never answers.
class Sleeper : public Liar {
 public:
  Result<std::unique_ptr<Reading>> read(const transfer::ChunkCaller&, std::vector<chunk::ChunkId>,
                                        std::stop_token stop) override {
    ++asked;
    std::mutex mutex;
    std::unique_lock lock(mutex);
    std::condition_variable_any never;
    never.wait_for(lock, stop, std::chrono::seconds(30), [] { return false; });
    return fail(ErrorCode::cancelled, "cut");
  }
};

/// A server with the node's key in front of a source.
struct Impostor {
  Impostor(FakeCc& cc, const std::string& name, transfer::ChunkSource& source)
      : routes({.key = transfer::derive_node_key(kDataKey, name), .clock = &clock}, source, nullptr) {
    http::Router router;
    routes.add_routes(router);
    server = std::make_unique<http::Server>(http::ServerOptions{}, std::move(router));
    EXPECT_TRUE(server->start());
    cc.know(name, "http://127.0.0.1:" + std::to_string(server->port()));
    cc.pretend_member(name, kImage, 1);
  }
  ~Impostor() {
    routes.stop();
    server->stop(std::chrono::seconds{0});
  }
  SystemClock clock;
  transfer::ChunkRoutes routes;
  std::unique_ptr<http::Server> server;
};

TEST_F(Peers, ALyingNeighbourIsDropped) {
  Liar liar;
  Impostor impostor(cc_, "nc9", liar);
  auto first = node("nc1");
  ASSERT_TRUE(first->fill(1, digest_));
  EXPECT_GT(liar.asked, 0);
  EXPECT_LE(liar.asked, 4);
  EXPECT_EQ(first_difference(*first, 1, v1_), std::nullopt);
}

TEST_F(Peers, ASilentNeighbourHoldsUpForSecondsOnly) {
  Sleeper sleeper;
  Impostor impostor(cc_, "nc9", sleeper);
  auto first = node("nc1");
  const auto begin = std::chrono::steady_clock::now();
  ASSERT_TRUE(first->fill(1, digest_));
  EXPECT_GT(sleeper.asked, 0);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
  EXPECT_EQ(first_difference(*first, 1, v1_), std::nullopt);
}

TEST_F(Peers, ADamagedChunkIsNotHandedOn) {
  auto first = node("nc1");
  ASSERT_TRUE(first->fill(1, digest_));
  first->stop();
  // Somebody writes over the published file.
  {
    std::filesystem::permissions(prefix("nc1") / "images" / kImage / "versions/1/machine",
                                 std::filesystem::perms::owner_all);
    const sys::Fd fd(::open((prefix("nc1") / "images" / kImage / "versions/1/machine").c_str(), O_RDWR));
    ASSERT_TRUE(fd.is_open());
    for (std::uint64_t at = 0; at < v1_.bytes(); at += 16 * kChunk)
      ASSERT_TRUE(sys::pwrite_all(fd.get(), "flipped", at + 100));
  }
  first->start();
  auto second = node("nc2");
  const auto filled = second->fill(1, digest_);
  ASSERT_TRUE(filled) << filled.error().message;
  EXPECT_EQ(first_difference(*second, 1, v1_), std::nullopt);
}

TEST_F(Peers, AreNotAskedIfSwitchedOff) {
  cc_.peers_enabled = false;
  Liar liar;
  Impostor impostor(cc_, "nc9", liar);
  auto first = node("nc1");
  ASSERT_TRUE(first->fill(1, digest_));
  EXPECT_EQ(liar.asked, 0);
  CacheOptions alone;
  alone.peers = false;
  auto second = node("nc2", alone);
  EXPECT_EQ(second->cache().source(), nullptr);
  ASSERT_TRUE(second->fill(1, digest_));
}

}  // namespace
}  // namespace educloud::nc
