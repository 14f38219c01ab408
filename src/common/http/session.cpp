#include "common/http/session.hpp"

#include <boost/asio/post.hpp>
#include <boost/beast/http/error.hpp>

#include "common/http/target.hpp"
#include "common/obs/log.hpp"

namespace educloud::http {
namespace {

constexpr std::size_t kBufferBytes = 256 * 1024;
constexpr std::size_t kBodyReadBytes = 192 * 1024;
constexpr std::size_t kHeadReadBytes = 4 * 1024;
constexpr std::chrono::milliseconds kLinger{2000};

/// Our error shape with a status that no ErrorCode maps to.
Response status_response(int status, ErrorCode code, std::string message) {
  Response response = error_response({code, std::move(message)});
  response.status = status;
  return response;
}

Response defect_response(const Request& request, std::string_view what) {
  obs::error("http.handler_failed", {{"method", request.method}, {"path", request.path}, {"what", what}});
  return error_response({ErrorCode::internal, "the server failed on this request; its log says why"});
}

/// Runs a handler or a sink; whatever it throws becomes a logged 500.
template <class Call>
Response guarded(const Request& request, const Call& call) {
  try {
    return call();
  } catch (const std::exception& e) {
    return defect_response(request, e.what());
  } catch (...) {
    return defect_response(request, "not a std::exception");
  }
}

}  // namespace

Session::Session(std::shared_ptr<Transport> transport, ServerCore& core, bool refuse)
    : transport_(std::move(transport)),
      core_(core),
      buffer_(kBufferBytes),
      remote_(transport_->remote_address()),
      refuse_(refuse),
      events_timer_(transport_->executor()) {}

net::awaitable<void> Session::run() {
  if (transport_->is_tls()) {
    transport_->expires_after(core_.options.header_timeout);
    const IoResult io = co_await transport_->handshake_server();
    if (io.ec) {
      obs::debug("http.handshake_failed", {{"remote", remote_}, {"error", io.ec.message()}});
      transport_->close();
      co_return;
    }
  }
  bool more = true;
  while (more && transport_->is_open()) {
    more = co_await serve_one();
  }
  co_await transport_->shutdown(kLinger);
}

void Session::drain() {
  net::post(transport_->executor(), [self = shared_from_this()] {
    self->draining_ = true;
    if (self->idle_) self->transport_->close();
    if (!self->events_) return;
    std::lock_guard lock(self->events_->mutex);
    self->events_->closed = true;
    self->events_timer_.cancel();
  });
}

void Session::abort() {
  net::post(transport_->executor(), [self = shared_from_this()] {
    self->draining_ = true;
    self->transport_->close();
    self->events_timer_.cancel();
  });
}

net::awaitable<IoResult> Session::fill_buffer(std::size_t most) {
  const std::size_t room = std::min(most, kBufferBytes - buffer_.size());
  if (room == 0) {
    const IoResult full{net::error::no_buffer_space, 0};
    co_return full;
  }
  const net::mutable_buffer space = buffer_.prepare(room);
  const IoResult io = co_await transport_->read_some(space);
  buffer_.commit(io.count);
  co_return io;
}

net::awaitable<Session::Head> Session::read_head(Parser* parser) {
  idle_ = buffer_.size() == 0;
  if (idle_) buffer_.shrink_to_fit();  // thousands of idle connections must cost little
  if (draining_) co_return Head::closed;
  transport_->expires_after(core_.options.header_timeout);
  std::size_t taken = 0;
  while (true) {
    if (buffer_.size() > 0) {
      idle_ = false;
      error_code ec;
      const std::size_t used = parser->put(buffer_.data(), ec);
      buffer_.consume(used);
      taken += used;
      if (ec == boost::beast::http::error::header_limit || taken > kMaxHeaderBytes) co_return Head::too_large;
      if (ec && ec != boost::beast::http::error::need_more) co_return Head::malformed;
      if (parser->is_header_done()) break;
    }
    const IoResult io = co_await fill_buffer(kHeadReadBytes);
    if (io.ec == net::error::no_buffer_space) co_return Head::too_large;
    if (io.ec) co_return Head::closed;
  }
  transport_->expires_never();
  co_return Head::complete;
}

net::awaitable<Session::Body> Session::read_body(Parser* parser) {
  while (!parser->is_done()) {
    bool need_more = buffer_.size() == 0;
    if (!need_more) {
      error_code ec;
      const std::size_t used = parser->put(buffer_.data(), ec);
      buffer_.consume(used);
      if (ec == boost::system::errc::operation_canceled) co_return Body::stopped;
      need_more = ec == boost::beast::http::error::need_more;
      if (ec && !need_more) co_return Body::malformed;
      // What the parser leaves is the head of a chunk that has not ended yet.
      if (need_more && buffer_.size() > kMaxHeaderBytes) co_return Body::malformed;
    }
    if (!need_more || parser->is_done()) continue;
    transport_->expires_after(core_.options.body_timeout);
    const IoResult io = co_await fill_buffer(kBodyReadBytes);
    if (io.ec == net::error::no_buffer_space) co_return Body::malformed;
    if (io.ec) co_return Body::cut;
  }
  transport_->expires_never();
  co_return Body::complete;
}

std::optional<Response> Session::build_request(const Parser& parser, Request& request) const {
  if (parser.too_many_headers) {
    return status_response(431, ErrorCode::too_large,
                           "more than " + std::to_string(kMaxHeaderFields) + " headers");
  }
  if (parser.duplicate_header) {
    return status_response(400, ErrorCode::invalid_argument, "a header that may stand once stands twice");
  }
  request.method = parser.method;
  request.headers = parser.headers;
  request.remote_address = remote_;
  if (parser.version == 11 && request.headers.find("Host") == request.headers.end()) {
    return status_response(400, ErrorCode::invalid_argument, "the Host header is missing");
  }
  const std::string_view coding = request.header("Transfer-Encoding");
  if (!coding.empty()) {
    // Whatever is not plainly "chunked" has an end that two readers may see at different places.
    if (parser.version == 10 || !parser.chunked() || HeaderLess{}(coding, "chunked") ||
        HeaderLess{}("chunked", coding)) {
      return status_response(400, ErrorCode::invalid_argument,
                             "Transfer-Encoding must be chunked, in HTTP/1.1");
    }
  }
  if (const auto length = parser.content_length()) request.content_length = *length;
  auto target = parse_target(parser.target);
  if (!target) {
    const bool too_long = target.error().code == ErrorCode::too_large;
    return status_response(too_long ? 414 : 400, target.error().code, target.error().message);
  }
  request.path = std::move(target->path);
  request.query = std::move(target->query);
  const std::string_view expect = request.header("Expect");
  if (!expect.empty() && (HeaderLess{}(expect, "100-continue") || HeaderLess{}("100-continue", expect))) {
    return status_response(417, ErrorCode::invalid_argument, "Expect can only be 100-continue");
  }
  return std::nullopt;
}

net::awaitable<bool> Session::serve_one() {
  const auto parser = std::make_unique<Parser>();
  const Head head = co_await read_head(parser.get());
  if (head == Head::closed) {
    transport_->close();
    co_return false;
  }
  const auto begin = std::chrono::steady_clock::now();
  Request request;
  std::optional<Response> response;
  if (head == Head::malformed) {
    response = status_response(400, ErrorCode::invalid_argument, "this is no HTTP/1.1 request");
    keep_alive_ = false;
  } else if (head == Head::too_large) {
    response = status_response(431, ErrorCode::too_large, "the header is larger than 16 KiB");
    keep_alive_ = false;
  } else {
    keep_alive_ = parser->keep_alive();
    response = co_await dispatch(parser.get(), &request);
  }
  if (!response) {
    transport_->close();
    co_return false;
  }
  if (!parser->is_done()) keep_alive_ = false;
  const int status = response->status;
  const bool head_only = request.method == "HEAD";
  bool sent = false;
  if (std::holds_alternative<Upgrade>(response->body)) {
    co_await run_tunnel(std::move(*response), parser->version);
  } else if (std::holds_alternative<std::shared_ptr<BodyStream>>(response->body)) {
    sent = co_await write_stream(std::move(*response), head_only, parser->version);
  } else {
    sent = co_await write_response(std::move(*response), head_only, parser->version);
  }
  const auto spent = std::chrono::steady_clock::now() - begin;
  // Never the query string: it holds grants.
  obs::debug("http.request", {{"method", request.method},
                              {"path", request.path},
                              {"status", status},
                              {"remote", remote_},
                              {"ms", std::chrono::duration_cast<std::chrono::milliseconds>(spent).count()}});
  co_return sent&& keep_alive_ && !draining_;
}

net::awaitable<std::optional<Response>> Session::dispatch(Parser* parser, Request* request) {
  std::optional<Response> response = build_request(*parser, *request);
  if (response) {
    keep_alive_ = false;
    co_return response;
  }
  if (refuse_) {
    keep_alive_ = false;
    response = error_response({ErrorCode::unavailable, "the server has too many connections; try again"});
    response->status = 503;
    response->headers["Retry-After"] = "1";
    co_return response;
  }
  Router::Match match = core_.router.match(request->method, request->path);
  if (match.route == nullptr && match.allow.empty()) {
    response = error_response({ErrorCode::not_found, "there is no " + request->path});
    co_return response;
  }
  if (match.route == nullptr) {
    response = status_response(405, ErrorCode::invalid_argument, "the method must be one of " + match.allow);
    response->headers["Allow"] = match.allow;
    co_return response;
  }
  request->params = std::move(match.params);
  if (match.route->body_limit < request->content_length) {
    response = error_response({ErrorCode::too_large, "the body is larger than " +
                                                         std::to_string(match.route->body_limit) + " bytes"});
    co_return response;
  }
  if (match.route->stream) {
    response = co_await serve_streaming(parser, match.route, request);
  } else {
    response = co_await serve_buffered(parser, match.route, request);
  }
  co_return response;
}

net::awaitable<bool> Session::send_continue(const Parser* parser) {
  const auto expect = parser->headers.find("Expect");
  if (expect == parser->headers.end() || parser->version == 10 || parser->is_done() || buffer_.size() > 0) {
    co_return true;
  }
  static constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
  const net::const_buffer text(kContinue.data(), kContinue.size());
  const IoResult io = co_await transport_->write_all(text, core_.options.body_timeout);
  co_return !io.ec;
}

net::awaitable<std::optional<Response>> Session::serve_buffered(Parser* parser, const Route* route,
                                                                Request* request) {
  std::optional<Response> response;
  const bool ready = co_await send_continue(parser);
  if (!ready) co_return response;
  bool over = false;
  parser->on_data = [request, route, &over](std::string_view data) {
    over = request->body.size() + data.size() > route->body_limit;
    if (!over) request->body.append(data);
    return !over;
  };
  const Body end = co_await read_body(parser);
  parser->on_data = nullptr;
  if (end == Body::cut) co_return response;
  if (over) {
    response = error_response(
        {ErrorCode::too_large, "the body is larger than " + std::to_string(route->body_limit) + " bytes"});
  } else if (end != Body::complete) {
    response = status_response(400, ErrorCode::invalid_argument, "the body is not valid HTTP/1.1");
  } else {
    response = guarded(*request, [request, route] { return route->handler(*request); });
  }
  co_return response;
}

net::awaitable<std::optional<Response>> Session::serve_streaming(Parser* parser, const Route* route,
                                                                 Request* request) {
  std::optional<Response> response;
  std::unique_ptr<BodySink> sink;
  Response refusal = guarded(*request, [request, route, &sink] {
    auto made = route->stream(*request);
    if (!made) return error_response(made.error());
    sink = std::move(*made);
    return Response{};
  });
  if (!sink) {
    response = std::move(refusal);
    co_return response;
  }
  const bool ready = co_await send_continue(parser);
  if (!ready) co_return response;

  std::uint64_t received = 0;
  parser->on_data = [request, route, &sink, &received, &response](std::string_view data) {
    received += data.size();
    Response failure = guarded(*request, [route, &sink, received, data] {
      if (received > route->body_limit) {
        return error_response({ErrorCode::too_large,
                               "the body is larger than " + std::to_string(route->body_limit) + " bytes"});
      }
      auto written = sink->write(std::span<const char>(data.data(), data.size()));
      return written ? Response{} : error_response(written.error());
    });
    if (failure.status != 200) response = std::move(failure);
    return !response.has_value();
  };
  const Body end = co_await read_body(parser);
  parser->on_data = nullptr;
  if (end == Body::malformed)
    response = status_response(400, ErrorCode::invalid_argument, "the body is not valid HTTP/1.1");
  if (end == Body::complete && !response) response = guarded(*request, [&sink] { return sink->finish(); });
  co_return response;
}

}  // namespace educloud::http
