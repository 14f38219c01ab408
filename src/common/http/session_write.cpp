#include <unistd.h>

#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/http/status.hpp>

#include <ctime>

#include "common/http/session.hpp"
#include "common/http/tunnel.hpp"
#include "common/obs/log.hpp"

namespace educloud::http {
namespace {

constexpr std::size_t kEventWriteBytes = 64 * 1024;
/// A body up to here goes out in one piece with its head.
constexpr std::size_t kOnePiece = 16 * 1024;

struct FileCloser {
  int fd;
  ~FileCloser() {
    if (fd >= 0) ::close(fd);
  }
};

std::string http_date() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  ::gmtime_r(&now, &utc);
  char text[40];
  const std::size_t length = std::strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &utc);
  return {text, length};
}

void append_header(std::string& out, std::string_view name, std::string_view value) {
  out += name;
  out += ": ";
  for (const char c : value) {
    // A value made from input must not start another header.
    const auto byte = static_cast<unsigned char>(c);
    if ((byte >= 0x20 && byte != 0x7f) || c == '\t') out += c;
  }
  out += "\r\n";
}

bool has_no_body(int status) {
  return status < 200 || status == 204 || status == 304;
}

}  // namespace

std::string Session::format_head(const Response& response, int version,
                                 std::optional<std::uint64_t> length) const {
  std::string out = "HTTP/1.1 " + std::to_string(response.status) + " ";
  const auto reason = boost::beast::http::obsolete_reason(
      boost::beast::http::int_to_status(static_cast<unsigned>(response.status)));
  out.append(reason.data(), reason.size());
  out += "\r\n";
  for (const auto& [name, value] : response.headers) append_header(out, name, value);
  if (length && response.headers.find("Content-Length") == response.headers.end()) {
    append_header(out, "Content-Length", std::to_string(*length));
  }
  append_header(out, "Date", http_date());
  if (!core_.options.server_name.empty()) append_header(out, "Server", core_.options.server_name);
  if (response.headers.find("Connection") == response.headers.end()) {
    if (!keep_alive_) append_header(out, "Connection", "close");
    if (keep_alive_ && version == 10) append_header(out, "Connection", "keep-alive");
  }
  out += "\r\n";
  return out;
}

net::awaitable<bool> Session::write_response(Response response, bool head_only, int version) {
  auto* file = std::get_if<FileBody>(&response.body);
  const FileCloser closer{file != nullptr ? file->fd : -1};
  if (response.status < 200 || response.status > 599) {
    obs::error("http.bad_status", {{"status", response.status}});
    response.status = 500;
  }
  auto* stream = std::get_if<std::shared_ptr<EventStream>>(&response.body);
  auto* text = std::get_if<std::string>(&response.body);

  std::optional<std::uint64_t> length;
  if (file != nullptr) length = file->length;
  if (text != nullptr) length = text->size();
  if (stream != nullptr) {
    response.headers["Content-Type"] = "text/event-stream";
    response.headers["Cache-Control"] = "no-store";
    keep_alive_ = false;
  }
  const bool bare = has_no_body(response.status);
  if (bare) length.reset();
  const auto wish = response.headers.find("Connection");
  if (wish != response.headers.end() && !HeaderLess{}(wish->second, "close") &&
      !HeaderLess{}("close", wish->second)) {
    keep_alive_ = false;
  }
  if (draining_) keep_alive_ = false;

  std::string head = format_head(response, version, length);
  const bool with_body = !bare && !head_only;
  const bool one_piece = with_body && text != nullptr && text->size() <= kOnePiece;
  if (one_piece) head += *text;
  const auto progress = core_.options.body_timeout;
  const net::const_buffer head_bytes = net::buffer(head);
  IoResult io = co_await transport_->write_all(head_bytes, progress);
  if (!io.ec && with_body && text != nullptr && !one_piece) {
    const net::const_buffer body_bytes = net::buffer(*text);
    io = co_await transport_->write_all(body_bytes, progress);
  }
  if (!io.ec && with_body && file != nullptr && file->length > 0) {
    io = co_await transport_->write_file(file->fd, file->offset, file->length, progress);
  }
  transport_->expires_never();
  if (!io.ec && with_body && stream != nullptr && *stream) {
    auto events = (*stream)->impl();
    stream->reset();  // the stream ends when the handler's side drops it
    co_await run_events(std::move(events));
  } else if (stream != nullptr && *stream) {
    (*stream)->impl()->detach();
  }
  if (io.ec) {
    obs::debug("http.write_failed", {{"remote", remote_}, {"error", io.ec.message()}});
    // The peer must not take a cut body for a whole one.
    transport_->close();
  }
  co_return !io.ec;
}

net::awaitable<void> Session::run_tunnel(Response response, int version) {
  auto peer = std::move(std::get<Upgrade>(response.body).peer);
  keep_alive_ = false;
  std::string head = format_head(response, version, std::nullopt);
  const bool sent = co_await write_text(std::move(head));
  transport_->expires_never();
  if (!sent || !peer) co_return;
  std::string nothing;
  co_await carry(transport_, peer->release(), std::move(nothing));
}

void Session::on_events_changed() {
  if (!events_) return;
  bool overflowed = false;
  {
    std::lock_guard lock(events_->mutex);
    overflowed = events_->overflowed;
  }
  if (overflowed) transport_->close();
  events_timer_.cancel();
}

net::awaitable<void> Session::run_events(std::shared_ptr<EventStream::Impl> events) {
  struct Detach {
    Session* session;
    ~Detach() {
      session->events_->detach();
      session->events_.reset();
    }
  };
  events_ = events;
  const Detach detach{this};
  {
    std::lock_guard lock(events->mutex);
    events->wake = [self = shared_from_this()] {
      net::post(self->transport_->executor(), [self] { self->on_events_changed(); });
    };
  }
  transport_->watch_peer([self = shared_from_this()] {
    self->transport_->close();
    self->events_timer_.cancel();
  });
  error_code ec;
  auto token = net::redirect_error(net::use_awaitable, ec);
  while (transport_->is_open()) {
    std::string text = events->take(kEventWriteBytes);
    if (text.empty()) {
      bool closed = false;
      {
        std::lock_guard lock(events->mutex);
        closed = events->closed;
      }
      if (closed || draining_) break;
      transport_->expires_never();
      events_timer_.expires_after(core_.options.event_keepalive);
      ec = {};
      co_await events_timer_.async_wait(token);
      if (ec) continue;
      text = ": keepalive\n\n";
    }
    const net::const_buffer bytes = net::buffer(text);
    const IoResult io = co_await transport_->write_all(bytes, core_.options.body_timeout);
    if (io.ec) transport_->close();
  }
}

}  // namespace educloud::http
