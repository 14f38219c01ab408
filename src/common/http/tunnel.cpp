#include "common/http/tunnel.hpp"

#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>

#include <vector>

namespace educloud::http {
namespace {

constexpr std::size_t kPiece = 128 * 1024;
constexpr std::chrono::seconds kStall{30};  ///< a peer that takes nothing for this long is gone
constexpr int kIdleSeconds = 5, kProbes = 3, kProbeSeconds = 3, kUserTimeoutMs = 15'000;

struct Tunnel {
  explicit Tunnel(std::shared_ptr<Transport> transport)
      : far(std::move(transport)), near(far->executor()), other(far->executor()) {}
  std::shared_ptr<Transport> far;
  net::local::stream_protocol::socket near;
  net::steady_timer other;  ///< cancelled when the other direction has ended
  bool other_ended = false;

  void close() {
    far->close();
    error_code ignored;
    near.close(ignored);
  }
};

/// An idle tunnel says nothing for minutes, and a cable that is pulled says nothing at all.
void notice_vanished_peer(int socket) {
  const auto set = [socket](int level, int name, int value) {
    ::setsockopt(socket, level, name, &value, sizeof value);
  };
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, kIdleSeconds);
  set(IPPROTO_TCP, TCP_KEEPINTVL, kProbeSeconds);
  set(IPPROTO_TCP, TCP_KEEPCNT, kProbes);
  set(IPPROTO_TCP, TCP_USER_TIMEOUT, kUserTimeoutMs);
}

net::awaitable<void> carry_out(std::shared_ptr<Tunnel> tunnel) {
  std::vector<char> piece(kPiece);
  error_code ec;
  auto token = net::redirect_error(net::use_awaitable, ec);
  while (true) {
    const auto space = net::buffer(piece);
    const std::size_t count = co_await tunnel->near.async_read_some(space, token);
    if (ec) break;
    const net::const_buffer bytes(piece.data(), count);
    const IoResult io = co_await tunnel->far->write_all(bytes, kStall);
    if (io.ec) break;
    tunnel->far->expires_never();
  }
  tunnel->close();
  tunnel->other_ended = true;
  tunnel->other.cancel();
}

net::awaitable<void> carry_in(std::shared_ptr<Tunnel> tunnel, std::string first) {
  std::vector<char> piece(kPiece);
  error_code ec;
  auto token = net::redirect_error(net::use_awaitable, ec);
  const auto greeting = net::buffer(first);
  co_await net::async_write(tunnel->near, greeting, token);
  while (!ec) {
    const net::mutable_buffer space = net::buffer(piece);
    const IoResult io = co_await tunnel->far->read_some(space);
    if (io.ec) break;
    const auto bytes = net::buffer(piece.data(), io.count);
    co_await net::async_write(tunnel->near, bytes, token);
  }
  tunnel->close();
}

}  // namespace

net::awaitable<void> carry(std::shared_ptr<Transport> transport, int fd, std::string first) {
  auto tunnel = std::make_shared<Tunnel>(std::move(transport));
  error_code ec;
  tunnel->near.assign(net::local::stream_protocol(), fd, ec);
  if (ec) {
    ::close(fd);
    tunnel->close();
    co_return;
  }
  notice_vanished_peer(tunnel->far->socket().native_handle());
  net::co_spawn(tunnel->far->executor(), carry_out(tunnel), net::detached);
  co_await carry_in(tunnel, std::move(first));
  auto token = net::redirect_error(net::use_awaitable, ec);
  while (!tunnel->other_ended) {
    tunnel->other.expires_after(kStall);
    co_await tunnel->other.async_wait(token);
  }
}

}  // namespace educloud::http
