#include <fcntl.h>

#include <random>
#include <thread>

#include "fixture.hpp"
#include "raw_peer.hpp"

namespace educloud::test {
namespace {

using http::BodyStream;
using http::Request;
using http::Response;
using Stream = std::shared_ptr<BodyStream>;

/// Answers with a stream that `produce` fills on a thread of its own.
class Produced : public HttpTest {
 protected:
  using Produce = std::function<void(const Request&, BodyStream&)>;

  void TearDown() override {
    server_.reset();
    for (auto& thread : threads_) thread.join();
  }
  void serve(std::string pattern, Produce produce, http::Headers headers = {}) {
    get(std::move(pattern), [this, produce = std::move(produce), headers](const Request& request) {
      auto stream = std::make_shared<BodyStream>();
      Response response;
      response.headers = headers;
      response.body = stream;
      const std::lock_guard lock(mutex_);
      threads_.emplace_back([produce, request, stream = std::move(stream)]() mutable {
        produce(request, *stream);
        stream.reset();
      });
      return response;
    });
  }
  std::shared_ptr<const sys::Fd> file(std::size_t size) {
    content_.resize(size);
    std::mt19937_64 random(11);
    for (char& c : content_) c = static_cast<char>(random());
    const auto path = dir_.path() / "file";
    std::ofstream(path, std::ios::binary) << content_;
    return std::make_shared<const sys::Fd>(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  }

  TempDir dir_;
  std::string content_;
  std::mutex mutex_;
  std::vector<std::thread> threads_;
  // What producers use outlives the test's body: they end in TearDown.
  Flag waiting_, gone_, gone_waiting_, ended_, began_, go_on_;
  std::atomic<std::uint64_t> taken_ = 0;
};

/// Pieces of many sizes, in memory and in a file, that together are `content`.
void push_mixed(const std::string& content, const std::shared_ptr<const sys::Fd>& file, BodyStream& stream) {
  std::mt19937 random(5);
  std::size_t at = 0;
  while (at < content.size()) {
    const std::size_t most = random() % 3 == 0 ? 200 : 150'000;
    const std::size_t count = std::min<std::size_t>(content.size() - at, 1 + random() % most);
    const auto kind = random() % 3;
    bool good = false;
    if (kind == 0) good = stream.push(file, at, count);
    if (kind == 1) good = stream.push(content.substr(at, count));
    if (kind == 2) good = stream.push(std::make_shared<const std::string>(content.substr(at, count)));
    if (!good) return;
    at += count;
  }
  stream.finish();
}

TEST_F(Produced, PiecesArriveInOrderAndTheConnectionIsKept) {
  auto slices = file(20'000'003);
  serve("/body", [&](const Request&, BodyStream& stream) { push_mixed(content_, slices, stream); });
  serve("/sized", [&](const Request&, BodyStream& stream) { push_mixed(content_, slices, stream); },
        {{"Content-Length", "20000003"}});
  get("/port", [](const Request& r) { return text(r.remote_address); });
  start();
  auto c = client({.body_limit = 1u << 30});
  for (int round = 0; round < 3; ++round) {
    for (const char* target : {"/body", "/sized"}) {
      const auto answer = c.send({.target = target});
      ASSERT_TRUE(answer) << answer.error().message;
      EXPECT_TRUE(answer->body == content_);
    }
  }
  RawPeer peer(port());
  peer.send(
      "HEAD /sized HTTP/1.1\r\nHost: x\r\n\r\nGET /port HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  const std::string both = peer.read_to_end();
  EXPECT_NE(both.find("Content-Length: 20000003"), std::string::npos);
  EXPECT_NE(both.find("127.0.0.1"), std::string::npos);
}

TEST_F(Produced, AnEmptyBodyAndAnOldClient) {
  serve("/empty", [](const Request&, BodyStream& stream) { stream.finish(); });
  serve("/text", [](const Request&, BodyStream& stream) {
    stream.push("hello ");
    stream.push("world");
    stream.finish();
  });
  start();
  auto c = client();
  EXPECT_EQ(c.send({.target = "/empty"})->body, "");
  EXPECT_EQ(c.send({.target = "/text"})->body, "hello world");
  RawPeer old(port());
  old.send("GET /text HTTP/1.0\r\n\r\n");
  const std::string answer = old.read_to_end();
  EXPECT_TRUE(answer.ends_with("\r\n\r\nhello world")) << answer;
  EXPECT_EQ(answer.find("chunked"), std::string::npos);
}

TEST_F(Produced, WhatIsNotFinishedIsCut) {
  serve("/aborted", [](const Request&, BodyStream& stream) {
    stream.push("some");
    stream.abort();
  });
  serve("/dropped", [](const Request&, BodyStream& stream) { stream.push("some"); });
  serve("/short",
        [](const Request&, BodyStream& stream) {
          stream.push("some");
          stream.finish();
        },
        {{"Content-Length", "5"}});
  serve("/long",
        [](const Request&, BodyStream& stream) {
          stream.push("some of it");
          stream.finish();
        },
        {{"Content-Length", "5"}});
  auto slices = file(1000);
  serve("/beyond", [slices](const Request&, BodyStream& stream) {
    stream.push(slices, 500, 1000);
    stream.finish();
  });
  start();
  for (const char* target : {"/aborted", "/dropped", "/short", "/long", "/beyond"}) {
    const auto answer = client().send({.target = target});
    ASSERT_FALSE(answer) << target;
    EXPECT_EQ(answer.error().code, ErrorCode::unavailable) << target;
  }
}

TEST_F(Produced, TheHeadWaitsForTheFirstPiece) {
  serve("/refused", [](const Request&, BodyStream& stream) {
    stream.answer(http::error_response({ErrorCode::not_found, "no such thing"}));
    EXPECT_FALSE(stream.push("late"));
  });
  serve("/changed", [](const Request&, BodyStream& stream) {
    Response head;
    head.status = 206;
    head.headers["X-Kind"] = "other";
    stream.head(std::move(head));
    stream.push("body");
    stream.finish();
  });
  serve("/late", [](const Request&, BodyStream& stream) {
    stream.push("some");
    stream.answer(text("too late"));
  });
  start();
  auto c = client();
  const auto refused = c.send({.target = "/refused"});
  EXPECT_EQ(refused->status, 404);
  EXPECT_EQ(refused->ok().error().message, "no such thing");
  const auto changed = c.send({.target = "/changed"});
  EXPECT_EQ(changed->status, 206);
  EXPECT_EQ(changed->header("X-Kind"), "other");
  EXPECT_EQ(changed->body, "body");
  EXPECT_FALSE(c.send({.target = "/late"}));
}

TEST_F(Produced, AClientThatLeavesEndsTheProducer) {
  serve("/endless", [&](const Request&, BodyStream& stream) {
    stream.on_gone([&] { gone_.set(); });
    while (stream.push(std::string(100'000, 'x'))) {
    }
    ended_.set();
  });
  serve("/silent", [&](const Request&, BodyStream& stream) {
    stream.push("first");
    stream.on_gone([&] { gone_waiting_.set(); });
    waiting_.set();
    EXPECT_TRUE(gone_waiting_.wait());
    EXPECT_FALSE(stream.is_open());
    EXPECT_FALSE(stream.push("more"));
    bool at_once = false;
    stream.on_gone([&] { at_once = true; });
    EXPECT_TRUE(at_once);
  });
  start();
  {
    RawPeer peer(port());
    peer.send("GET /endless HTTP/1.1\r\nHost: x\r\n\r\n");
    peer.read_until("xxxx");
  }
  EXPECT_TRUE(gone_.wait());
  EXPECT_TRUE(ended_.wait());
  {
    RawPeer peer(port());
    peer.send("GET /silent HTTP/1.1\r\nHost: x\r\n\r\n");
    peer.read_until("first");
    EXPECT_TRUE(waiting_.wait());
  }
  EXPECT_TRUE(gone_waiting_.wait());
}

TEST_F(Produced, AClientThatSentMoreAndLeftIsNoticed) {
  serve("/silent", [&](const Request&, BodyStream& stream) {
    stream.on_gone([&] { gone_.set(); });
    EXPECT_TRUE(gone_.wait());
  });
  start();
  {
    RawPeer peer(port());
    peer.send("GET /silent HTTP/1.1\r\nHost: x\r\n\r\nGET /next HTTP/1.1\r\n");
  }
  EXPECT_TRUE(gone_.wait());
}

TEST_F(Produced, AClientThatTakesNothingIsCut) {
  options_.body_timeout = std::chrono::seconds{1};
  serve("/endless", [&](const Request&, BodyStream& stream) {
    while (stream.push(std::string(100'000, 'x'))) taken_ += 100'000;
    ended_.set();
  });
  start();
  RawPeer peer(port(), 4096);
  peer.send("GET /endless HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(ended_.wait());
  EXPECT_LT(taken_, 32u << 20) << "what waits for a client is bounded";
}

TEST_F(Produced, AProducerThatDoesNothingIsCut) {
  options_.body_timeout = std::chrono::seconds{1};
  serve("/never", [&](const Request&, BodyStream& stream) {
    stream.on_gone([&] { gone_.set(); });
    EXPECT_TRUE(gone_.wait());
  });
  start();
  EXPECT_FALSE(client().send({.target = "/never"}));
}

TEST_F(Produced, StopEndsABodyThatWaits) {
  serve("/never", [&](const Request&, BodyStream& stream) {
    stream.push("x");
    stream.on_gone([&] { gone_.set(); });
    began_.set();
    EXPECT_TRUE(gone_.wait());
  });
  start();
  std::thread reader([&] { EXPECT_FALSE(client().send({.target = "/never"})); });
  EXPECT_TRUE(began_.wait());
  server_->stop(std::chrono::seconds{0});
  reader.join();
}

TEST_F(Produced, PipelinedRequestsAreAnsweredAfterTheBody) {
  serve("/slow", [&](const Request&, BodyStream& stream) {
    stream.push("one");
    EXPECT_TRUE(go_on_.wait());
    stream.push("two");
    stream.finish();
  });
  get("/next", [](const Request&) { return text("three"); });
  start();
  RawPeer peer(port());
  peer.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
  peer.read_until("one");
  peer.send("GET /next HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  go_on_.set();
  const std::string rest = peer.read_to_end();
  EXPECT_LT(rest.find("two"), rest.find("three"));
  EXPECT_NE(rest.find("three"), std::string::npos);
}

}  // namespace
}  // namespace educloud::test
