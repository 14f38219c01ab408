#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <nlohmann/json.hpp>

#include "common/base/result.hpp"
#include "common/sys/file.hpp"

namespace educloud::http {

/// Case-insensitive header names.
struct HeaderLess {
  using is_transparent = void;
  bool operator()(std::string_view a, std::string_view b) const;
};
using Headers = std::map<std::string, std::string, HeaderLess>;

/// A request as a handler sees it.
struct Request {
  std::string method;
  std::string path;  ///< decoded, without query; never holds NUL, "//" or a ".." segment
  std::map<std::string, std::string> query;   ///< decoded; the last of a repeated key
  std::map<std::string, std::string> params;  ///< {name} parts of the route's pattern, decoded
  Headers headers;
  std::string body;  ///< empty on streaming routes
  std::string remote_address;
  std::uint64_t content_length = 0;

  /// Header value or "".
  std::string_view header(std::string_view name) const;
  /// Value of a {name}; it is a defect to ask for one the pattern does not have.
  const std::string& param(std::string_view name) const;
  /// The body as JSON object. Errors: invalid_argument, too_large.
  Result<nlohmann::json> json() const;
};

/// Part of an open file, sent without loading it into memory. The server closes `fd`.
struct FileBody {
  int fd = -1;
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
};

/// Live events (text/event-stream). The handler keeps one reference and pushes from any thread.
/// Bounded: when the client is slower than `kMaxQueued` events, the stream is closed and the client
/// reconnects.
class EventStream {
 public:
  static constexpr std::size_t kMaxQueued = 1000;
  EventStream();
  ~EventStream();
  /// False once the client is gone: forget the stream.
  bool push(std::string_view event, std::string_view data, std::string_view id = {});
  void close();
  bool is_open() const;

  struct Impl;  ///< shared with the server's connection
  std::shared_ptr<Impl> impl() const { return impl_; }

 private:
  std::shared_ptr<Impl> impl_;
};

struct Response;

/// A body that is made while it is sent, by a thread of the handler's own. The handler keeps one reference
/// and gives the other to the response; the producer then pushes pieces and ends with `finish`. Sent chunked,
/// or with Content-Length if the handler sets that header (a body of another length cuts the connection).
/// The head is sent with the first piece: until then the producer can change it, or `answer` something else,
/// so that a handler which would have to wait can leave all of its answer to a thread of its own. All members
/// but the destructor may be called from any thread.
class BodyStream {
 public:
  /// Bytes that may wait for the client before push() blocks.
  static constexpr std::uint64_t kMaxQueued = 2ull << 20;

  BodyStream();
  /// Without finish() before: as abort().
  ~BodyStream();
  BodyStream(const BodyStream&) = delete;
  BodyStream& operator=(const BodyStream&) = delete;
  /// Waits while too much is queued. False: the client is gone, took nothing for the server's
  /// body_timeout, or wants no body (HEAD); stop.
  bool push(std::string data);
  /// The same without a copy of what somebody else holds too.
  bool push(std::shared_ptr<const std::string> data);
  /// Part of a file, sent by sendfile where there is no TLS. `file` is kept open until it is sent. A slice
  /// that begins where the last one ended is sent in one go with it.
  bool push(std::shared_ptr<const sys::Fd> file, std::uint64_t offset, std::uint64_t length);
  /// The body is complete.
  void finish();
  /// It can not be completed: the connection is cut, so that the client does not take it for complete.
  void abort();
  /// Before the first push: status and headers of this instead of those the handler returned.
  void head(Response response);
  /// Before the first push: the client gets this (no stream) instead of what the handler returned.
  /// After it, as abort().
  void answer(Response response);
  /// False once it is ended or the client is gone.
  bool is_open() const;
  /// Runs once, on any thread, when the client is gone before finish(); at once if that is so already.
  void on_gone(std::function<void()> gone);

  struct Impl;  ///< shared with the server's connection
  std::shared_ptr<Impl> impl() const { return impl_; }

 private:
  std::shared_ptr<Impl> impl_;
};

/// The connection becomes a tunnel to `peer`, a connected UNIX socket, until either side ends. Goes with
/// status 101 and an Upgrade header.
struct Upgrade {
  std::shared_ptr<sys::Fd> peer;
};

struct Response {
  int status = 200;
  Headers headers;
  std::variant<std::string, FileBody, std::shared_ptr<EventStream>, std::shared_ptr<BodyStream>, Upgrade>
      body;
};

/// 101 for a request that asks for `protocol`. Errors (as a response): 426 if it does not.
Response upgrade_response(const Request& request, std::string_view protocol, sys::Fd peer);

/// {"error": {"code", "message", "key"}} with the status the code maps to.
Response error_response(const Error& error);
Response json_response(const nlohmann::json& json, int status = 200);
/// The head of an answer with `size` bytes: Range (one range), ETag, If-Range and If-None-Match as RFC 9110.
/// `etag` without quotes.
struct RangeHead {
  Response response;  ///< 200 or 206, and the caller adds the body; 304 or 416, and that is all
  bool wants_body = false;
  std::uint64_t offset = 0, length = 0;  ///< what to send
};
RangeHead range_head(const Request& request, std::uint64_t size, std::string_view etag,
                     std::string_view content_type = "application/octet-stream");
/// A file with Range (one range), ETag, If-Range and If-None-Match as RFC 9110: 200, 206, 304 or 416.
/// `etag` without quotes; the file must not change while it is served.
Response file_response(const Request& request, int fd, std::uint64_t size, std::string_view etag,
                       std::string_view content_type = "application/octet-stream");

/// Receives a request body that is too large for memory.
class BodySink {
 public:
  virtual ~BodySink() = default;  ///< destroyed without `finish`: the connection was cut
  virtual Result<> write(std::span<const char> data) = 0;
  virtual Response finish() = 0;
};

using Handler = std::function<Response(const Request&)>;
/// Decides on the headers alone. An error is answered at once, without reading the body.
using StreamHandler = std::function<Result<std::unique_ptr<BodySink>>(const Request&)>;

struct Route {
  std::string method;
  std::string pattern;  ///< "/images/{id}/versions/{version}"; a {name} matches one segment
  Handler handler;
  StreamHandler stream = {};  ///< instead of `handler`
  std::uint64_t body_limit = 256 * 1024;
};

/// The routes of a server. Unknown path: 404; known path, other method: 405 with Allow.
class Router {
 public:
  void add(Route route);
  const std::vector<Route>& routes() const { return routes_; }
  struct Match {
    const Route* route = nullptr;
    std::map<std::string, std::string> params;
    std::string allow;  ///< methods the path has, if the method did not match
  };
  Match match(std::string_view method, std::string_view path) const;

 private:
  std::vector<Route> routes_;
};

}  // namespace educloud::http
