#include <thread>

#include "fixture.hpp"
#include "raw_peer.hpp"

namespace educloud::test {
namespace {

using http::Request;

/// Accepts connections and does with them what the test says; never answers by itself.
class Listener {
 public:
  Listener() : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    ::bind(fd_, reinterpret_cast<const sockaddr*>(&address), length);
    ::listen(fd_, 8);
    ::getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &length);
    port_ = ntohs(address.sin_port);
  }
  ~Listener() {
    for (std::thread& thread : threads_) thread.join();
    ::close(fd_);
  }
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;
  int port() const { return port_; }
  /// For each text: accepts, reads one request head, sends the text and closes.
  void answer(std::vector<std::string> texts) {
    threads_.emplace_back([this, texts = std::move(texts)] {
      for (const std::string& text : texts) {
        const int peer = ::accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC);
        std::string seen;
        char buffer[4096];
        while (seen.find("\r\n\r\n") == std::string::npos) {
          const ssize_t got = ::recv(peer, buffer, sizeof buffer, 0);
          if (got <= 0) break;
          seen.append(buffer, static_cast<std::size_t>(got));
        }
        std::size_t sent = 0;
        while (sent < text.size()) {
          const ssize_t n = ::send(peer, text.data() + sent, text.size() - sent, MSG_NOSIGNAL);
          if (n <= 0) break;
          sent += static_cast<std::size_t>(n);
        }
        ::close(peer);
      }
    });
  }

 private:
  int fd_;
  int port_ = 0;
  std::vector<std::thread> threads_;
};

http::Client client_for(int port, http::ClientOptions options = {}) {
  return http::Client(*http::Url::parse("http://127.0.0.1:" + std::to_string(port)), std::move(options));
}

class ClientTest : public HttpTest {};

TEST_F(ClientTest, NobodyListening) {
  int port = 0;
  {
    const Listener gone;
    port = gone.port();
  }
  EXPECT_EQ(client_for(port).send({.target = "/"}).error().code, ErrorCode::unavailable);
  auto unknown = http::Client(*http::Url::parse("http://no-such-host.invalid:1"));
  const auto answer = unknown.send({.target = "/"});
  ASSERT_FALSE(answer);
  EXPECT_NE(answer.error().message.find("no-such-host.invalid"), std::string::npos);
}

TEST_F(ClientTest, ASilentServerIsATimeout) {
  const Listener silent;
  auto c = client_for(silent.port(), {.io_timeout = std::chrono::seconds{1}});
  const auto answer = c.send({.target = "/"});
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, ErrorCode::timeout);
}

TEST_F(ClientTest, StopEndsACallPromptly) {
  const Listener silent;
  auto c = client_for(silent.port());
  std::stop_source source;
  const auto begin = std::chrono::steady_clock::now();
  std::thread stopper([&source, begin] {
    std::this_thread::sleep_until(begin + std::chrono::milliseconds{100});
    source.request_stop();
  });
  const auto answer = c.send({.target = "/"}, source.get_token());
  stopper.join();
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, ErrorCode::cancelled);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds{5});
  EXPECT_EQ(c.send({.target = "/"}, source.get_token()).error().code, ErrorCode::cancelled);
}

TEST_F(ClientTest, TheSameClientWorksAfterAStop) {
  get("/a", [](const Request&) { return text("x"); });
  start();
  auto c = client();
  for (int i = 0; i < 200; ++i) {
    std::stop_source source;
    std::thread stopper([&source] { source.request_stop(); });
    const auto answer = c.send({.target = "/a"}, source.get_token());
    stopper.join();
    if (!answer) {
      EXPECT_EQ(answer.error().code, ErrorCode::cancelled);
    }
  }
  EXPECT_EQ(c.send({.target = "/a"})->body, "x");
}

TEST_F(ClientTest, AConnectionTheServerClosedWhileIdleIsReplaced) {
  options_.header_timeout = std::chrono::seconds{1};
  get("/a", [](const Request&) { return text("x"); });
  post("/a", [](const Request& r) { return text(r.body); });
  start();
  auto c = client();
  ASSERT_EQ(c.send({.target = "/a"})->body, "x");
  // The server's clock for the client's connection starts when its answer is written, which may be a little
  // after the client has it: a second witness leaves it a whole second.
  for (int i = 0; i < 2; ++i) {
    RawPeer witness(port());
    witness.read_to_end();
  }
  const auto again = c.send({.method = "POST", .target = "/a", .body = "once"});
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(again->body, "once");
}

TEST_F(ClientTest, AFreshConnectionCutBeforeTheAnswerIsNotRetried) {
  Listener rude;
  rude.answer({""});
  EXPECT_EQ(client_for(rude.port()).send({.target = "/"}).error().code, ErrorCode::unavailable);
}

TEST_F(ClientTest, ABodyCutShortIsAnError) {
  Listener rude;
  rude.answer({"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
               "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc"});
  auto c = client_for(rude.port());
  EXPECT_EQ(c.send({.target = "/"}).error().code, ErrorCode::unavailable);
  EXPECT_EQ(c.send({.target = "/"}).error().code, ErrorCode::unavailable);
}

TEST_F(ClientTest, ReadsChunkedAndUntilCloseAndSkipsInterimAnswers) {
  Listener other;
  other.answer(
      {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: "
       "chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
       "HTTP/1.1 200 OK\r\n\r\nuntil the end"});
  auto c = client_for(other.port());
  EXPECT_EQ(c.send({.target = "/"})->body, "abcde");
  EXPECT_EQ(c.send({.target = "/"})->body, "until the end");
}

TEST_F(ClientTest, NonsenseIsCorruptAndBounded) {
  Listener rude;
  rude.answer({"SMTP ready\r\n\r\n", "HTTP/1.1 200 OK\r\nX: " + std::string(1 << 20, 'x')});
  auto c = client_for(rude.port());
  EXPECT_EQ(c.send({.target = "/"}).error().code, ErrorCode::corrupt);
  EXPECT_EQ(c.send({.target = "/"}).error().code, ErrorCode::corrupt);
}

TEST_F(ClientTest, RefusesToSendWhatWouldSplitARequest) {
  get("/a", [](const Request&) { return text("x"); });
  start();
  auto c = client();
  EXPECT_EQ(c.send({.target = "/a HTTP/1.1\r\nX: y"}).error().code, ErrorCode::invalid_argument);
  EXPECT_EQ(c.send({.target = "/a", .headers = {{"X", "a\r\nY: b"}}}).error().code,
            ErrorCode::invalid_argument);
  EXPECT_EQ(c.send({.target = "/a"})->body, "x");
}

TEST_F(ClientTest, TheBasePathComesFirst) {
  get("/base/a", [](const Request&) { return text("x"); });
  start();
  for (const char* base : {"/base", "/base/"}) {
    http::Client c(*http::Url::parse("http://localhost:" + std::to_string(port()) + base));
    const auto answer = c.send({.target = "/a"});
    ASSERT_TRUE(answer) << answer.error().message;
    EXPECT_EQ(answer->body, "x");
  }
}

}  // namespace
}  // namespace educloud::test
