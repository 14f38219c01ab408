#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/steady_timer.hpp>

#include <array>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "common/base/result.hpp"

namespace educloud::http {

namespace net = boost::asio;
using boost::system::error_code;

/// How an operation ended. Returned by value: an awaiting expression holds no references.
struct IoResult {
  error_code ec;
  std::size_t count = 0;
};

/// One TCP connection, plain or TLS, with one deadline that the owner moves as it makes progress. When
/// it passes, the socket is closed and every pending operation ends with `timed_out`.
/// Everything happens on the socket's executor: a strand in the server, one thread in the client.
class Transport : public std::enable_shared_from_this<Transport> {
 public:
  /// `tls` outlives the transport; null: plain.
  Transport(net::ip::tcp::socket socket, net::ssl::context* tls);

  net::awaitable<IoResult> connect(net::ip::tcp::endpoint endpoint);
  /// `host` is checked against the certificate by the client, and ignored by the server.
  net::awaitable<IoResult> handshake_client(std::string host);
  net::awaitable<IoResult> handshake_server();
  net::awaitable<IoResult> read_some(net::mutable_buffer buffer);
  net::awaitable<IoResult> write_some(net::const_buffer buffer);
  /// All of `buffer`; each piece sent moves the deadline `progress` ahead.
  net::awaitable<IoResult> write_all(net::const_buffer buffer, std::chrono::milliseconds progress);
  /// `length` bytes of the file from `offset`, by sendfile(2) where there is no TLS. Ends with
  /// `eof` if the file is shorter.
  net::awaitable<IoResult> write_file(int fd, std::uint64_t offset, std::uint64_t length,
                                      std::chrono::milliseconds progress);
  /// Says good-bye (TLS close_notify, FIN), reads what the peer still sends for a moment so that it
  /// sees our last answer instead of a reset, then closes.
  net::awaitable<void> shutdown(std::chrono::milliseconds linger);

  /// Calls `gone` once the peer sends anything or goes away, while we only write. At most once per transport.
  void watch_peer(std::function<void()> gone);

  /// Calls `gone` once the peer has closed, and looks at nothing that it sends: the next request stays
  /// unread. Nothing else may wait for the socket until unwatch_gone().
  void watch_gone(std::function<void()> gone);
  void unwatch_gone();
  /// True once the peer has closed, whatever it sent before and nobody has read yet.
  bool is_peer_gone();
  /// Held back, small pieces leave in full packets; let go, what waits leaves at once. Without TLS only.
  void hold_small(bool hold);

  void expires_after(std::chrono::milliseconds time);
  void expires_never();
  bool expired() const { return expired_; }
  /// Ends everything at once. Idempotent.
  void close();
  bool is_open() const { return socket_.is_open(); }
  bool is_tls() const { return tls_.has_value(); }

  net::ip::tcp::socket& socket() { return socket_; }
  net::any_io_executor executor() { return socket_.get_executor(); }
  std::string remote_address() const;

 private:
  IoResult result(error_code ec, std::size_t count) const;
  void start_timer();
  net::awaitable<IoResult> write_file_plain(int fd, std::uint64_t offset, std::uint64_t length,
                                            std::chrono::milliseconds progress);
  net::awaitable<IoResult> write_file_copying(int fd, std::uint64_t offset, std::uint64_t length,
                                              std::chrono::milliseconds progress);

  net::ip::tcp::socket socket_;
  std::optional<net::ssl::stream<net::ip::tcp::socket&>> tls_;
  net::steady_timer timer_;
  std::chrono::steady_clock::time_point deadline_ = std::chrono::steady_clock::time_point::max();
  std::uint64_t timer_generation_ = 0;
  bool timer_pending_ = false;
  bool expired_ = false;
  bool watching_ = false;
  bool held_ = false;
  std::uint64_t watch_generation_ = 0;
  std::array<char, 512> watch_buffer_{};
};

/// An Error for a failed operation: timeout, cancelled or unavailable; `what` goes first.
Error transport_error(std::string_view what, error_code ec);

}  // namespace educloud::http
