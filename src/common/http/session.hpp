#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>

#include <chrono>
#include <memory>
#include <optional>

#include "common/http/body_stream.hpp"
#include "common/http/event_stream.hpp"
#include "common/http/parser.hpp"
#include "common/http/server.hpp"
#include "common/http/transport.hpp"

namespace educloud::http {

/// What every connection of a server shares; never changes while the server runs.
struct ServerCore {
  ServerOptions options;
  Router router;
  std::optional<net::ssl::context> tls;
};

/// One connection of the server: requests one after another until somebody closes. All members belong to
/// the connection's strand; only `drain` and `abort` may be called from elsewhere.
class Session : public std::enable_shared_from_this<Session> {
 public:
  /// `core` outlives the session. `refuse`: answer 503 to the first request and close.
  Session(std::shared_ptr<Transport> transport, ServerCore& core, bool refuse);

  /// Runs until the connection ends.
  net::awaitable<void> run();
  /// Ends after the request in progress, at once if there is none.
  void drain();
  /// Cuts the connection.
  void abort();

 private:
  using Parser = MessageParser<true>;
  enum class Head { complete, closed, malformed, too_large };
  enum class Body { complete, cut, malformed, stopped };

  net::awaitable<bool> serve_one();
  net::awaitable<Head> read_head(Parser* parser);
  net::awaitable<Body> read_body(Parser* parser);
  /// Reads up to `most` bytes; `no_buffer_space` if nothing of what is buffered could be parsed.
  net::awaitable<IoResult> fill_buffer(std::size_t most);
  /// The response to `request`, after its body was read; sets `keep_alive_` to false if it was not.
  net::awaitable<std::optional<Response>> dispatch(Parser* parser, Request* request);
  net::awaitable<std::optional<Response>> serve_buffered(Parser* parser, const Route* route,
                                                         Request* request);
  net::awaitable<std::optional<Response>> serve_streaming(Parser* parser, const Route* route,
                                                          Request* request);
  net::awaitable<bool> send_continue(const Parser* parser);
  std::optional<Response> build_request(const Parser& parser, Request& request) const;

  net::awaitable<bool> write_response(Response response, bool head_only, int version);
  std::string format_head(const Response& response, int version, std::optional<std::uint64_t> length) const;
  net::awaitable<void> run_events(std::shared_ptr<EventStream::Impl> events);
  void on_events_changed();
  /// A response whose body is a BodyStream.
  net::awaitable<bool> write_stream(Response response, bool head_only, int version);
  /// Waits for what the producer does next; aborted if the client or the producer is gone.
  net::awaitable<BodyStream::Impl::Batch> next_batch(std::shared_ptr<BodyStream::Impl> body);
  net::awaitable<bool> send_batches(std::shared_ptr<BodyStream::Impl> body, BodyStream::Impl::Batch batch,
                                    BodyFraming framing);
  net::awaitable<bool> write_pieces(std::shared_ptr<BodyStream::Impl> body, BodyStream::Impl::Batch batch);
  net::awaitable<bool> write_text(std::string text);
  /// The connection is a tunnel from now on; nothing follows it.
  net::awaitable<void> run_tunnel(Response response, int version);

  std::shared_ptr<Transport> transport_;
  ServerCore& core_;
  boost::beast::flat_buffer buffer_;
  std::string remote_;
  bool refuse_;
  bool keep_alive_ = true;
  bool idle_ = true;  ///< between two requests
  bool draining_ = false;
  std::shared_ptr<EventStream::Impl> events_;  ///< while this connection carries live events
  net::steady_timer events_timer_;             ///< wakes run_events or next_batch
};

}  // namespace educloud::http
