#include "common/http/transport.hpp"

#include <netinet/tcp.h>
#include <poll.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/ssl/host_name_verification.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace educloud::http {
namespace {

constexpr std::size_t kWritePiece = 256 * 1024;
constexpr std::size_t kCopyPiece = 64 * 1024;
/// After so many bytes a file transfer lets other connections of its thread go first.
constexpr std::uint64_t kFairShare = 8ull << 20;
constexpr std::size_t kLingerBytes = 8u << 20;

using net::ssl::stream_base;

}  // namespace

Transport::Transport(net::ip::tcp::socket socket, net::ssl::context* tls)
    : socket_(std::move(socket)), timer_(socket_.get_executor()) {
  if (tls != nullptr) tls_.emplace(socket_, *tls);
}

IoResult Transport::result(error_code ec, std::size_t count) const {
  if (ec && expired_) ec = net::error::timed_out;
  return {ec, count};
}

net::awaitable<IoResult> Transport::connect(net::ip::tcp::endpoint endpoint) {
  error_code ec;
  auto token = net::redirect_error(net::use_awaitable, ec);
  co_await socket_.async_connect(endpoint, token);
  if (!ec) {
    error_code ignored;
    socket_.set_option(net::ip::tcp::no_delay(true), ignored);
  }
  co_return result(ec, 0);
}

net::awaitable<IoResult> Transport::handshake_client(std::string host) {
  error_code ec;
  static_cast<void>(net::ip::make_address(host, ec));
  // SNI takes names only (RFC 6066, 3).
  const bool is_name = static_cast<bool>(ec);
  if (is_name && SSL_ctrl(tls_->native_handle(), SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name,
                          host.data()) != 1) {
    co_return result(net::error::invalid_argument, 0);
  }
  tls_->set_verify_mode(net::ssl::verify_peer);
  tls_->set_verify_callback(net::ssl::host_name_verification(host));
  ec = {};
  auto token = net::redirect_error(net::use_awaitable, ec);
  co_await tls_->async_handshake(stream_base::client, token);
  co_return result(ec, 0);
}

net::awaitable<IoResult> Transport::handshake_server() {
  error_code ec;
  auto token = net::redirect_error(net::use_awaitable, ec);
  co_await tls_->async_handshake(stream_base::server, token);
  co_return result(ec, 0);
}

net::awaitable<IoResult> Transport::read_some(net::mutable_buffer buffer) {
  error_code ec;
  std::size_t count = 0;
  auto token = net::redirect_error(net::use_awaitable, ec);
  if (tls_) {
    count = co_await tls_->async_read_some(buffer, token);
  } else {
    count = co_await socket_.async_read_some(buffer, token);
  }
  co_return result(ec, count);
}

net::awaitable<IoResult> Transport::write_some(net::const_buffer buffer) {
  error_code ec;
  std::size_t count = 0;
  auto token = net::redirect_error(net::use_awaitable, ec);
  if (tls_) {
    count = co_await tls_->async_write_some(buffer, token);
  } else {
    count = co_await socket_.async_write_some(buffer, token);
  }
  co_return result(ec, count);
}

net::awaitable<IoResult> Transport::write_all(net::const_buffer buffer, std::chrono::milliseconds progress) {
  std::size_t sent = 0;
  while (buffer.size() > 0) {
    expires_after(progress);
    const net::const_buffer piece = net::buffer(buffer, kWritePiece);
    const IoResult io = co_await write_some(piece);
    sent += io.count;
    buffer += io.count;
    if (io.ec) co_return result(io.ec, sent);
  }
  co_return result({}, sent);
}

net::awaitable<IoResult> Transport::write_file(int fd, std::uint64_t offset, std::uint64_t length,
                                               std::chrono::milliseconds progress) {
  IoResult io;
  if (tls_) {
    io = co_await write_file_copying(fd, offset, length, progress);
  } else {
    io = co_await write_file_plain(fd, offset, length, progress);
  }
  co_return io;
}

net::awaitable<IoResult> Transport::write_file_plain(int fd, std::uint64_t offset, std::uint64_t length,
                                                     std::chrono::milliseconds progress) {
  error_code ec;
  socket_.native_non_blocking(true, ec);
  auto token = net::redirect_error(net::use_awaitable, ec);
  auto position = static_cast<off_t>(offset);
  std::uint64_t left = length;
  std::uint64_t in_a_row = 0;
  while (!ec && left > 0) {
    if (!socket_.is_open()) co_return result(net::error::operation_aborted, length - left);
    const auto want = static_cast<std::size_t>(std::min<std::uint64_t>(left, 1u << 20));
    const ssize_t sent = ::sendfile(socket_.native_handle(), fd, &position, want);
    if (sent == 0) co_return result(net::error::eof, length - left);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno == EAGAIN) {
      expires_after(progress);
      co_await socket_.async_wait(net::ip::tcp::socket::wait_write, token);
      in_a_row = 0;
      continue;
    }
    if (sent < 0) co_return result(error_code(errno, boost::system::system_category()), length - left);
    left -= static_cast<std::uint64_t>(sent);
    in_a_row += static_cast<std::uint64_t>(sent);
    if (in_a_row >= kFairShare) {
      in_a_row = 0;
      co_await net::post(socket_.get_executor(), net::use_awaitable);
    }
  }
  co_return result(ec, length - left);
}

net::awaitable<IoResult> Transport::write_file_copying(int fd, std::uint64_t offset, std::uint64_t length,
                                                       std::chrono::milliseconds progress) {
  const auto buffer = std::make_unique<char[]>(kCopyPiece);
  std::uint64_t done = 0;
  while (done < length) {
    const auto want = static_cast<std::size_t>(std::min<std::uint64_t>(length - done, kCopyPiece));
    const ssize_t got = ::pread(fd, buffer.get(), want, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) co_return result(error_code(errno, boost::system::system_category()), done);
    if (got == 0) co_return result(net::error::eof, done);
    const net::const_buffer piece(buffer.get(), static_cast<std::size_t>(got));
    const IoResult io = co_await write_all(piece, progress);
    if (io.ec) co_return io;
    done += static_cast<std::uint64_t>(got);
  }
  co_return result({}, done);
}

net::awaitable<void> Transport::shutdown(std::chrono::milliseconds linger) {
  if (!is_open()) co_return;
  error_code ec;
  expires_after(linger);
  if (tls_) {
    // Only our close_notify is sent: a peer that never answers it costs nothing but the linger.
    SSL_set_shutdown(tls_->native_handle(), SSL_get_shutdown(tls_->native_handle()) | SSL_RECEIVED_SHUTDOWN);
    auto token = net::redirect_error(net::use_awaitable, ec);
    co_await tls_->async_shutdown(token);
  }
  if (!is_open()) co_return;
  error_code ignored;
  socket_.shutdown(net::ip::tcp::socket::shutdown_send, ignored);
  const auto scratch = std::make_unique<char[]>(kCopyPiece);
  auto read_token = net::redirect_error(net::use_awaitable, ec);
  ec = {};
  for (std::size_t total = 0; !ec && total < kLingerBytes && is_open();) {
    const net::mutable_buffer buffer(scratch.get(), kCopyPiece);
    const std::size_t count = co_await socket_.async_read_some(buffer, read_token);
    total += count;
  }
  close();
}

void Transport::watch_peer(std::function<void()> gone) {
  auto handler = [self = shared_from_this(), gone = std::move(gone)](error_code, std::size_t) { gone(); };
  if (tls_) {
    tls_->async_read_some(net::buffer(watch_buffer_), std::move(handler));
  } else {
    socket_.async_read_some(net::buffer(watch_buffer_), std::move(handler));
  }
}

void Transport::watch_gone(std::function<void()> gone) {
  if (watching_ || !is_open()) return;
  watching_ = true;
  const std::uint64_t generation = ++watch_generation_;
  auto handler = [self = shared_from_this(), generation, gone = std::move(gone)](error_code ec) {
    if (ec || generation != self->watch_generation_ || !self->is_open()) return;
    char byte = 0;
    const ssize_t got = ::recv(self->socket_.native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
      self->watching_ = false;
      self->watch_gone(gone);
      return;
    }
    // Bytes are the next request, or TLS's good-bye: what follows them is_peer_gone() can tell.
    if (got <= 0) gone();
  };
  socket_.async_wait(net::ip::tcp::socket::wait_read, std::move(handler));
}

void Transport::unwatch_gone() {
  if (!watching_) return;
  watching_ = false;
  ++watch_generation_;
  error_code ignored;
  socket_.cancel(ignored);
}

bool Transport::is_peer_gone() {
  if (!is_open()) return true;
  pollfd state{socket_.native_handle(), POLLRDHUP, 0};
  return ::poll(&state, 1, 0) > 0 && (state.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

void Transport::hold_small(bool hold) {
  if (tls_ || held_ == hold || !is_open()) return;
  held_ = hold;
  const int on = hold ? 1 : 0;
  ::setsockopt(socket_.native_handle(), IPPROTO_TCP, TCP_CORK, &on, sizeof on);
}

void Transport::expires_after(std::chrono::milliseconds time) {
  deadline_ = std::chrono::steady_clock::now() + time;
  if (is_open() && (!timer_pending_ || deadline_ < timer_.expiry())) start_timer();
}

void Transport::expires_never() {
  deadline_ = std::chrono::steady_clock::time_point::max();
}

void Transport::start_timer() {
  // The timer is not moved for every piece of progress: it looks at the deadline when it fires.
  const std::uint64_t generation = ++timer_generation_;
  timer_pending_ = true;
  timer_.expires_at(deadline_);
  timer_.async_wait([weak = weak_from_this(), generation](error_code ec) {
    const auto self = weak.lock();
    if (!self || generation != self->timer_generation_) return;
    self->timer_pending_ = false;
    if (ec || self->deadline_ == std::chrono::steady_clock::time_point::max()) return;
    if (std::chrono::steady_clock::now() < self->deadline_) {
      self->start_timer();
      return;
    }
    self->expired_ = true;
    self->close();
  });
}

void Transport::close() {
  error_code ignored;
  socket_.close(ignored);
  ++timer_generation_;
  timer_pending_ = false;
  timer_.cancel();
}

std::string Transport::remote_address() const {
  error_code ec;
  const auto endpoint = socket_.remote_endpoint(ec);
  return ec ? std::string{} : endpoint.address().to_string();
}

Error transport_error(std::string_view what, error_code ec) {
  ErrorCode code = ErrorCode::unavailable;
  std::string text = ec.message();
  if (ec == net::error::timed_out) code = ErrorCode::timeout;
  if (ec == net::error::eof || ec == net::ssl::error::stream_truncated) text = "the connection was closed";
  return {code, std::string(what) + ": " + text};
}

}  // namespace educloud::http
