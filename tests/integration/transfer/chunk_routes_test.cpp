#include <thread>

#include "integration/transfer/chunk_fixture.hpp"
#include "integration/transfer/cutting_proxy.hpp"

namespace educloud::transfer {
namespace {

using chunk::ChunkId;

class ChunkFetch : public ChunkTest {
 protected:
  /// 200 chunks of which two thirds lie in a file.
  void add_chunks(std::size_t count = 200) {
    for (std::size_t i = 0; i < count; ++i) {
      raw_.push_back(chunk_bytes(i, i % 7 == 0 ? 1 + i * 31 : chunk::kChunkBytes));
      ids_.push_back(source_.add(raw_.back(), i % 3 != 0));
    }
  }
  std::vector<std::string> raw_;
  std::vector<ChunkId> ids_;
};

TEST_F(ChunkFetch, FramesComeInTheOrderAskedFor) {
  add_chunks();
  start();
  auto client = reader();
  for (int round = 0; round < 5; ++round) {
    auto ids = ids_;
    std::mt19937 random(static_cast<unsigned>(round));
    if (round > 0) std::shuffle(ids.begin(), ids.end(), random);
    ids.insert(ids.end(), ids_.begin(), ids_.begin() + 50);  // some twice
    const auto got = fetch(client, ids);
    ASSERT_TRUE(got) << got.error().message;
    ASSERT_EQ(got->size(), ids.size());
    for (std::size_t i = 0; i < ids.size(); ++i) ASSERT_EQ(ChunkId::of((*got)[i]), ids[i]);
  }
  EXPECT_EQ(source_.last_caller_.imgid, kChunkImage);
  EXPECT_EQ(source_.last_caller_.version, 3);
  EXPECT_EQ(source_.last_caller_.node, "nc1");
  EXPECT_EQ(source_.last_caller_.priority, Priority::user);
}

TEST_F(ChunkFetch, AFrameThatCanNotBeHadIsAnErrorOrACut) {
  add_chunks(20);
  start();
  auto client = reader();
  source_.fail_at_ = 0;
  EXPECT_EQ(fetch(client, ids_).error().code, ErrorCode::timeout);
  source_.fail_at_ = 15;
  EXPECT_EQ(fetch(client, ids_).error().code, ErrorCode::unavailable);
  source_.fail_at_ = SIZE_MAX;
  EXPECT_TRUE(fetch(client, ids_)) << "the next request has a new connection";
  const ChunkId unknown = ChunkId::of(std::string("nobody has this"));
  EXPECT_EQ(fetch(client, std::span(&unknown, 1)).error().code, ErrorCode::not_found);
}

TEST_F(ChunkFetch, ACutInTheMiddleIsNotTakenForTheEnd) {
  add_chunks();
  start();
  CuttingProxy proxy(server_->port(), {2'000'000});
  auto where = remote(grant("GET"));
  where.base.port = proxy.port();
  ChunkClient client(where);
  EXPECT_EQ(fetch(client, ids_).error().code, ErrorCode::unavailable);
  EXPECT_EQ(proxy.cuts(), 1);
  EXPECT_TRUE(fetch(client, ids_));
}

TEST_F(ChunkFetch, LiesAreFound) {
  add_chunks(3);
  chunk::FrameEncoder encoder;
  std::string other;
  ASSERT_TRUE(encoder.append(chunk_bytes(77), other));
  start();
  const auto code_of = [&](std::string lie) {
    source_.add_lie(ids_[1], std::move(lie));
    auto client = reader();
    const auto got = fetch(client, ids_);
    return got ? ErrorCode::internal : got.error().code;
  };
  EXPECT_EQ(code_of(other), ErrorCode::corrupt) << "another chunk";
  std::string right;
  ASSERT_TRUE(encoder.append(raw_[1], right));
  EXPECT_EQ(code_of(right + right), ErrorCode::corrupt) << "one too many";
  EXPECT_EQ(code_of(right.substr(0, right.size() - 9)), ErrorCode::corrupt) << "a short one";
  std::string wrong = right;
  wrong.back() ^= 1;
  EXPECT_EQ(code_of(wrong), ErrorCode::corrupt) << "flipped bit";
  auto header = *chunk::decode_header(std::span<const char>(right).first(chunk::kFrameHeaderBytes));
  std::string longer = right;
  header.raw_bytes -= 1;
  chunk::encode_header(header,
                       std::span<char, chunk::kFrameHeaderBytes>(longer.data(), chunk::kFrameHeaderBytes));
  EXPECT_EQ(code_of(longer), ErrorCode::corrupt) << "unpacks to more than it says";
  EXPECT_EQ(code_of(std::string(5000, 'x')), ErrorCode::corrupt) << "no frames at all";
  source_.add_lie(ids_[2], "");
  EXPECT_EQ(code_of(right), ErrorCode::corrupt) << "too few";
}

TEST_F(ChunkFetch, AClientThatLeavesEndsTheReading) {
  add_chunks();
  source_.hang_at_ = 100;
  start();
  std::stop_source stop;
  std::jthread asking([&] {
    chunk::FrameDecoder decoder;
    auto client = reader();
    const auto ignore = [](const chunk::FrameHeader&, std::span<const char>) -> Result<> { return {}; };
    const auto done = client.fetch(ids_, ignore, stop.get_token());
    EXPECT_EQ(done.error().code, ErrorCode::cancelled);
  });
  ASSERT_TRUE(source_.hanging_.wait());
  stop.request_stop();
  EXPECT_TRUE(source_.all_closed_.wait()) << "the source is told to stop";
}

TEST_F(ChunkFetch, ManyAtOnceAndNoMoreThanThat) {
  add_chunks();
  max_readers_ = 4;
  start();
  std::atomic<int> good = 0, refused = 0;
  {
    std::vector<std::jthread> askers;
    for (int i = 0; i < 12; ++i) {
      askers.emplace_back([&] {
        auto client = reader();
        for (int round = 0; round < 10; ++round) {
          const auto got = fetch(client, ids_);
          if (got) ++good;
          if (!got) {
            EXPECT_EQ(got.error().code, ErrorCode::unavailable) << got.error().message;
            ++refused;
          }
        }
      });
    }
  }
  EXPECT_GE(good, 4);
  EXPECT_EQ(good + refused, 120);
  source_.hang_at_ = 0;
  std::vector<std::jthread> hanging;
  std::atomic<int> began = 0;
  for (int i = 0; i < 4; ++i) {
    hanging.emplace_back([&] {
      auto client = reader();
      ++began;
      static_cast<void>(fetch(client, ids_));
    });
  }
  http::Client plain(*http::Url::parse(url()));
  std::optional<http::ClientResponse> answer;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (std::chrono::steady_clock::now() < deadline) {
    answer = *plain.send({.target = path("/manifest?") + grant("GET")});
    if (answer->status == 503) break;
  }
  EXPECT_EQ(answer->status, 503);
  EXPECT_EQ(answer->header("Retry-After"), "1");
  source_.release();
}

TEST_F(ChunkFetch, ASlowClientGetsAllOfIt) {
  add_chunks();
  start();
  auto client = reader();
  std::size_t count = 0;
  const auto done = client.fetch(ids_,
                                 [&](const chunk::FrameHeader& header, std::span<const char>) -> Result<> {
                                   // Waits for nothing but time: the server's queue and the socket fill up
                                   // meanwhile.
                                   if (count % 20 == 0)
                                     std::this_thread::sleep_for(std::chrono::milliseconds(5));
                                   EXPECT_EQ(header.id, ids_[count++]);
                                   return {};
                                 },
                                 {});
  EXPECT_TRUE(done);
  EXPECT_EQ(count, ids_.size());
}

TEST_F(ChunkFetch, StopEndsWhatRuns) {
  add_chunks();
  source_.hang_at_ = 3;
  start();
  std::jthread asking([&] {
    auto client = reader();
    EXPECT_FALSE(fetch(client, ids_));
  });
  ASSERT_TRUE(source_.hanging_.wait());
  routes_->stop();
  EXPECT_EQ(source_.open_readings_, 0);
  auto client = reader();
  EXPECT_EQ(fetch(client, ids_).error().code, ErrorCode::unavailable);
}

TEST_F(ChunkFetch, StopDoesNotWaitForASlowClient) {
  add_chunks();
  for (int i = 0; i < 3; ++i) ids_.insert(ids_.end(), ids_.begin(), ids_.begin() + 200);
  start();
  Signal first, stopped;
  std::jthread asking([&] {
    auto client = reader();
    const auto done = client.fetch(ids_,
                                   [&](const chunk::FrameHeader&, std::span<const char>) -> Result<> {
                                     first.set();
                                     EXPECT_TRUE(stopped.wait());
                                     return {};
                                   },
                                   {});
    EXPECT_FALSE(done);
  });
  ASSERT_TRUE(first.wait());
  routes_->stop();
  stopped.set();
}

TEST_F(ChunkFetch, RequestsAreCheckedBeforeAnythingIsRead) {
  add_chunks(2);
  start();
  http::Client client(*http::Url::parse(url()));
  const auto status = [&](std::string method, std::string target, std::string body = {},
                          http::Headers headers = {}) {
    auto answer = client.send({method, target, headers, body});
    return answer ? answer->status : -1;
  };
  const std::string ids = chunk::encode_ids(ids_);
  const std::string fetch_path = path("/chunks:fetch?");
  EXPECT_EQ(status("POST", fetch_path + grant("GET"), ids), 200);
  EXPECT_EQ(status("POST", fetch_path + grant("PUT"), ids), 403) << "a grant to write";
  EXPECT_EQ(status("POST", path("/chunks:missing?") + grant("GET"), ids), 403) << "a grant to read";
  EXPECT_EQ(status("POST", fetch_path + grant("GET", "nc1", 0), ids), 403) << "expired";
  std::string other = grant("GET");
  other.replace(other.find("nc1"), 3, "nc2");
  EXPECT_EQ(status("POST", fetch_path + other, ids), 403) << "another node's";
  EXPECT_EQ(status("POST", version_path(kChunkImage, 4) + "/chunks:fetch?" + grant("GET"), ids), 403);
  EXPECT_EQ(status("POST", path("/chunks:fetch"), ids), 403) << "none";
  EXPECT_EQ(status("POST", "/images/IMG0A1B2C3D/versions/3/chunks:fetch?" + grant("GET"), ids), 400);
  EXPECT_EQ(status("POST", "/images/" + kChunkImage + "/versions/03/chunks:fetch?" + grant("GET"), ids), 400);
  EXPECT_EQ(status("POST", fetch_path + grant("GET"), ids + "x"), 400) << "no multiple of 32";
  EXPECT_EQ(status("POST", fetch_path + grant("GET"), std::string(32, '\0')), 400) << "a hole";
  EXPECT_EQ(status("POST", fetch_path + grant("GET"), std::string(32 * (kMaxIds + 1), 'x')), 413);
  EXPECT_EQ(status("POST", fetch_path + grant("GET"), ids, {{"Educloud-Priority", "urgent"}}), 400);
  EXPECT_EQ(status("POST", fetch_path + grant("GET"), ""), 200) << "nothing asked for";
  EXPECT_EQ(status("GET", path("/chunks/xyz?") + grant("GET")), 400);
  EXPECT_EQ(status("GET", path("/chunks/" + std::string(64, '0') + "?") + grant("GET")), 404);
  EXPECT_EQ(status("GET", path("/manifest?") + grant("GET")), 404);
  EXPECT_EQ(status("GET", path("/raw?") + grant("GET")), 404);
}

}  // namespace
}  // namespace educloud::transfer
