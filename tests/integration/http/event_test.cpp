#include <thread>

#include "fixture.hpp"
#include "raw_peer.hpp"

namespace educloud::test {
namespace {

using http::EventStream;
using http::Request;

/// Hands every subscriber's stream to the test.
class Events : public HttpTest {
 protected:
  void serve() {
    get("/events", [this](const Request&) {
      auto stream = std::make_shared<EventStream>();
      std::lock_guard lock(mutex_);
      streams_.push_back(stream);
      changed_.notify_all();
      http::Response response;
      response.body = stream;
      return response;
    });
    start();
  }
  std::shared_ptr<EventStream> subscriber(std::size_t index) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::seconds{20}, [&] { return streams_.size() > index; });
    return streams_.at(index);
  }
  void subscribe(const RawPeer& peer) { peer.send("GET /events HTTP/1.1\r\nHost: x\r\n\r\n"); }
  /// Pushes until the stream says its client is gone, or the deadline passes.
  static bool push_until_gone(EventStream& stream, std::string_view data) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds{20};
    while (std::chrono::steady_clock::now() < deadline) {
      if (!stream.push("e", data)) return true;
      std::this_thread::yield();
    }
    return false;
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::shared_ptr<EventStream>> streams_;
};

TEST_F(Events, TwoSubscribersAndASlowOneIsDropped) {
  serve();
  RawPeer fast(port());
  subscribe(fast);
  const auto fast_stream = subscriber(0);
  RawPeer slow(port(), 4096);
  subscribe(slow);
  const auto slow_stream = subscriber(1);

  ASSERT_TRUE(fast_stream->push("task", "{\"a\":1}", "1"));
  const std::string seen = fast.read_until("data: {\"a\":1}\n\n");
  EXPECT_NE(seen.find("Content-Type: text/event-stream"), std::string::npos);
  EXPECT_NE(seen.find("id: 1\nevent: task\ndata: {\"a\":1}\n\n"), std::string::npos);

  EXPECT_TRUE(push_until_gone(*slow_stream, std::string(60'000, 's')));
  ASSERT_TRUE(fast_stream->push("task", "still here", "2"));
  EXPECT_NE(fast.read_until("still here\n\n").find("id: 2"), std::string::npos);
}

TEST_F(Events, ASilentStreamIsKeptAlive) {
  options_.event_keepalive = std::chrono::milliseconds{50};
  serve();
  RawPeer peer(port());
  subscribe(peer);
  EXPECT_NE(peer.read_until(": keepalive\n\n").find("200 OK"), std::string::npos);
  ASSERT_TRUE(subscriber(0)->push("e", "after"));
  EXPECT_NE(peer.read_until("data: after\n\n").find("event: e"), std::string::npos);
}

TEST_F(Events, AClientThatLeavesIsNoticed) {
  serve();
  {
    RawPeer peer(port());
    subscribe(peer);
    ASSERT_TRUE(subscriber(0)->push("e", "x"));
    peer.read_until("data: x");
  }
  EXPECT_TRUE(push_until_gone(*subscriber(0), "x"));
}

TEST_F(Events, CloseSendsWhatIsQueuedFirst) {
  serve();
  RawPeer peer(port());
  subscribe(peer);
  const auto stream = subscriber(0);
  stream->push("e", "last words");
  stream->close();
  EXPECT_FALSE(stream->push("e", "too late"));
  const std::string seen = peer.read_to_end();
  EXPECT_TRUE(peer.closed_by_server());
  EXPECT_NE(seen.find("last words\n\n"), std::string::npos);
  EXPECT_EQ(seen.find("too late"), std::string::npos);
}

TEST_F(Events, PushingWhileTheServerStopsIsSafe) {
  serve();
  std::vector<std::unique_ptr<RawPeer>> peers;
  for (int i = 0; i < 8; ++i) {
    peers.push_back(std::make_unique<RawPeer>(port()));
    subscribe(*peers.back());
    subscriber(static_cast<std::size_t>(i));
  }
  std::atomic<bool> stop = false;
  std::vector<std::thread> pushers;
  for (int i = 0; i < 2; ++i) {
    pushers.emplace_back([this, &stop] {
      while (!stop) {
        for (const auto& stream : streams_) stream->push("e", "data");
      }
    });
  }
  peers[0]->read_until("data: data\n\n");
  server_->stop();
  server_.reset();
  stop = true;
  for (std::thread& pusher : pushers) pusher.join();
  for (const auto& stream : streams_) EXPECT_FALSE(stream->push("e", "data"));
}

TEST_F(Events, AClientOfOursFollowsThem) {
  serve();
  std::stop_source source;
  std::string seen;
  Flag got;
  std::thread follower([&] {
    auto c = client();
    const auto answer = c.download(
        {.target = "/events"}, {},
        [&](std::span<const char> data) -> Result<> {
          seen.append(data.data(), data.size());
          if (seen.find("\n\n") != std::string::npos) got.set();
          return {};
        },
        source.get_token());
    EXPECT_EQ(answer.error().code, ErrorCode::cancelled);
  });
  const auto stream = subscriber(0);
  stream->push("task", "hi");
  EXPECT_TRUE(got.wait());
  source.request_stop();
  follower.join();
  EXPECT_EQ(seen, "event: task\ndata: hi\n\n");
  EXPECT_TRUE(push_until_gone(*stream, "x"));
}

}  // namespace
}  // namespace educloud::test
