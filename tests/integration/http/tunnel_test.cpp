#include <sys/socket.h>
#include <unistd.h>

#include <thread>

#include "integration/http/fixture.hpp"

namespace educloud::test {
namespace {

std::pair<sys::Fd, sys::Fd> pair_of_sockets() {
  int fds[2] = {-1, -1};
  EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
  return {sys::Fd(fds[0]), sys::Fd(fds[1])};
}

/// What comes until the other end closes, at most `most` bytes.
std::string read_all(int fd, std::size_t most = 1 << 30) {
  std::string all(64 * 1024, '\0');
  std::string out;
  while (out.size() < most) {
    const auto got = ::read(fd, all.data(), std::min(all.size(), most - out.size()));
    if (got <= 0) break;
    out.append(all.data(), static_cast<std::size_t>(got));
  }
  return out;
}

void write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const auto put = ::send(fd, text.data(), text.size(), MSG_NOSIGNAL);
    ASSERT_GT(put, 0);
    text.remove_prefix(static_cast<std::size_t>(put));
  }
}

class Tunnel : public HttpTest {
 protected:
  /// Whoever opens /tunnel is connected to our_ end.
  void serve() {
    auto both = pair_of_sockets();
    our_ = std::move(both.first);
    auto theirs = std::make_shared<sys::Fd>(std::move(both.second));
    get("/tunnel", [theirs](const http::Request& request) {
      return http::upgrade_response(request, "test-bytes", std::move(*theirs));
    });
    get("/refused", [](const http::Request&) {
      return http::error_response({ErrorCode::permission_denied, "not you", {}});
    });
    start();
  }
  std::jthread open(sys::Fd near, Result<>* result) {
    return std::jthread([this, near = std::move(near), result](std::stop_token stop) mutable {
      *result = client().tunnel({.target = "/tunnel"}, "test-bytes", std::move(near), std::move(stop));
    });
  }
  sys::Fd our_;
};

TEST_F(Tunnel, CarriesBytesBothWaysUntilOneSideEnds) {
  serve();
  write_all(our_.get(), "who speaks first");
  auto [mine, near] = pair_of_sockets();
  Result<> result;
  auto thread = open(std::move(near), &result);
  EXPECT_EQ(read_all(mine.get(), 16), "who speaks first");
  const std::string much(5 << 20, 'x');
  std::jthread writer([&, fd = mine.get()] { write_all(fd, much); });
  EXPECT_EQ(read_all(our_.get(), much.size()), much);
  writer.join();
  write_all(our_.get(), "last words");
  our_.close();
  EXPECT_EQ(read_all(mine.get()), "last words");
  thread.join();
  EXPECT_TRUE(result) << result.error().message;
}

TEST_F(Tunnel, WhatWasWrittenBeforeTheEndArrives) {
  serve();
  auto [mine, near] = pair_of_sockets();
  Result<> result;
  auto thread = open(std::move(near), &result);
  const std::string much(3 << 20, 'y');
  std::jthread writer([&, fd = mine.get()] {
    write_all(fd, much);
    ::shutdown(fd, SHUT_RDWR);
  });
  EXPECT_EQ(read_all(our_.get()), much);
}

TEST_F(Tunnel, AServerThatSaysNoIsHeard) {
  serve();
  auto [mine, near] = pair_of_sockets();
  auto refused = client().tunnel({.target = "/refused"}, "test-bytes", std::move(near));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::permission_denied);
  EXPECT_EQ(client().send({.target = "/tunnel"})->status, 426);
}

TEST_F(Tunnel, EndsWithTheServerOrTheCaller) {
  serve();
  auto [mine, near] = pair_of_sockets();
  Result<> result;
  auto thread = open(std::move(near), &result);
  write_all(mine.get(), "x");
  EXPECT_EQ(read_all(our_.get(), 1), "x");
  thread.request_stop();
  thread.join();
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::cancelled);
  EXPECT_EQ(read_all(our_.get()), "");
}

TEST_F(Tunnel, AServerThatStopsCutsIt) {
  serve();
  auto [mine, near] = pair_of_sockets();
  Result<> result;
  auto thread = open(std::move(near), &result);
  write_all(mine.get(), "x");
  EXPECT_EQ(read_all(our_.get(), 1), "x");
  server_->stop(std::chrono::seconds{0});
  thread.join();
  EXPECT_EQ(read_all(mine.get()), "");
}

}  // namespace
}  // namespace educloud::test
