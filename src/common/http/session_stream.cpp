#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <charconv>

#include "common/http/session.hpp"
#include "common/obs/log.hpp"

namespace educloud::http {
namespace {

using Stream = BodyStream::Impl;

/// What one HTTP chunk holds at most (one longer piece is sent as one chunk).
constexpr std::uint64_t kBatchBytes = 1u << 20;
/// How often a client is looked at that we have nothing for, beside being told.
constexpr std::chrono::milliseconds kPeerCheck{1000};
bool has_no_body(int status) {
  return status < 200 || status == 204 || status == 304;
}

std::optional<std::uint64_t> promised_length(const Response& response) {
  const auto at = response.headers.find("Content-Length");
  if (at == response.headers.end()) return std::nullopt;
  std::uint64_t length = 0;
  const std::string& text = at->second;
  const auto [end, errc] = std::from_chars(text.data(), text.data() + text.size(), length);
  const bool good = errc == std::errc{} && end == text.data() + text.size();
  return good ? std::optional(length) : std::nullopt;
}

}  // namespace

net::awaitable<Stream::Batch> Session::next_batch(std::shared_ptr<Stream> body) {
  Stream::Batch batch;
  const auto limit = std::chrono::steady_clock::now() + 2 * core_.options.body_timeout;
  error_code ec;
  auto token = net::redirect_error(net::use_awaitable, ec);
  while (transport_->is_open()) {
    batch = body->take(kBatchBytes);
    if (!batch.is_empty()) {
      transport_->unwatch_gone();
      co_return batch;
    }
    transport_->hold_small(false);
    transport_->expires_never();
    transport_->watch_gone([self = shared_from_this()] {
      self->transport_->close();
      self->events_timer_.cancel();
    });
    const auto now = std::chrono::steady_clock::now();
    events_timer_.expires_at(std::min(limit, now + kPeerCheck));
    ec = {};
    co_await events_timer_.async_wait(token);
    if (ec) continue;
    if (transport_->is_peer_gone()) break;
    if (std::chrono::steady_clock::now() < limit) continue;
    obs::warn("http.body_stalled",
              {{"remote", remote_}, {"limit_s", 2 * core_.options.body_timeout.count()}});
    break;
  }
  batch.end = Stream::End::aborted;
  co_return batch;
}

net::awaitable<bool> Session::write_text(std::string text) {
  const net::const_buffer bytes = net::buffer(text);
  const IoResult io = co_await transport_->write_all(bytes, core_.options.body_timeout);
  co_return !io.ec;
}

net::awaitable<bool> Session::write_pieces(std::shared_ptr<Stream> body, Stream::Batch batch) {
  const auto progress = core_.options.body_timeout;
  for (Stream::Piece& piece : batch.pieces) {
    IoResult io;
    if (piece.file) {
      io = co_await transport_->write_file(piece.file->get(), piece.offset, piece.length, progress);
    } else {
      const net::const_buffer bytes(piece.bytes().data(), piece.bytes().size());
      io = co_await transport_->write_all(bytes, progress);
    }
    if (io.ec) {
      obs::debug("http.write_failed", {{"remote", remote_}, {"error", io.ec.message()}});
      co_return false;
    }
    body->sent(piece.length);
  }
  co_return true;
}

net::awaitable<bool> Session::write_stream(Response response, bool head_only, int version) {
  auto stream = std::move(std::get<std::shared_ptr<BodyStream>>(response.body));
  if (!stream) {
    Response defect = error_response({ErrorCode::internal, "the server made no body"});
    const bool sent = co_await write_response(std::move(defect), head_only, version);
    co_return sent;
  }
  const std::shared_ptr<Stream> body = stream->impl();
  stream.reset();  // the body ends when the handler's side drops it
  struct Detach {
    Session* session;
    Stream* body;
    ~Detach() {
      session->transport_->unwatch_gone();
      session->transport_->hold_small(false);
      body->detach();
    }
  };
  const Detach detach{this, body.get()};
  auto wake = [self = shared_from_this()] {
    net::post(self->transport_->executor(), [self] { self->events_timer_.cancel(); });
  };
  body->attach(std::move(wake), 2 * core_.options.body_timeout);

  Stream::Batch batch = co_await next_batch(body);
  if (batch.answer) {
    response = std::move(*batch.answer);
    batch.answer.reset();
  }
  if (batch.end == Stream::End::answered) {
    const bool sent = co_await write_response(std::move(response), head_only, version);
    co_return sent;
  }
  BodyFraming framing;
  const bool with_body = !head_only && !has_no_body(response.status);
  framing.left = promised_length(response);
  framing.chunked = !framing.left && version == 11;
  if (framing.chunked && !has_no_body(response.status)) response.headers["Transfer-Encoding"] = "chunked";
  // Of an HTTP/1.0 client's body only the connection's end tells the length.
  if (draining_ || (!framing.chunked && !framing.left)) keep_alive_ = false;
  bool good = batch.end != Stream::End::aborted || !batch.pieces.empty();
  if (good) {
    transport_->hold_small(true);
    std::string head = format_head(response, version, std::nullopt);
    good = co_await write_text(std::move(head));
  }
  if (good && with_body) {
    good = co_await send_batches(body, std::move(batch), framing);
  }
  transport_->expires_never();
  if (!good) {
    obs::debug("http.body_cut", {{"remote", remote_}, {"status", response.status}});
    // The peer must not take a cut body for a whole one.
    transport_->close();
  }
  co_return good;
}

net::awaitable<bool> Session::send_batches(std::shared_ptr<Stream> body, Stream::Batch batch,
                                           BodyFraming framing) {
  while (true) {
    const Stream::End end = batch.end;
    const std::uint64_t bytes = batch.bytes;
    if (framing.left) {
      if (bytes > *framing.left) co_return false;
      *framing.left -= bytes;
    }
    bool good = true;
    if (framing.chunked && bytes > 0) {
      std::string text = framing.before(bytes);
      good = co_await write_text(std::move(text));
    }
    if (good && bytes > 0) {
      good = co_await write_pieces(body, std::move(batch));
    }
    if (!good || end == Stream::End::aborted) co_return false;
    if (end == Stream::End::finished) {
      if (framing.left && *framing.left > 0) co_return false;
      if (framing.chunked) {
        std::string text = framing.last();
        good = co_await write_text(std::move(text));
      }
      co_return good;
    }
    batch = co_await next_batch(body);
  }
}

}  // namespace educloud::http
