#pragma once

#include <chrono>
#include <memory>
#include <stop_token>
#include <string>

#include "common/http/message.hpp"

namespace educloud::http {

/// "http://host:port/base" or https.
struct Url {
  bool tls = false;
  std::string host;
  int port = 80;
  std::string path;  ///< with the query as written; "" or begins with '/'

  static Result<Url> parse(std::string_view text);
  std::string authority() const;
};

/// Percent-encodes everything but RFC 3986 unreserved characters.
std::string url_encode(std::string_view text);

struct ClientOptions {
  std::chrono::seconds connect_timeout{5};
  std::chrono::seconds io_timeout{30};     ///< without a single byte of progress
  std::uint64_t body_limit = 16ull << 20;  ///< of an answer kept in memory
  std::string tls_ca_file = {};            ///< empty: the system's
};

struct ClientRequest {
  std::string method = "GET";
  std::string target;  ///< path and query, already encoded; appended to the base URL's path
  Headers headers = {};
  std::string body = {};
  bool repeatable = false;  ///< may be sent twice though it is a POST, if a kept connection turns out closed
};

struct ClientResponse {
  int status = 0;
  Headers headers;
  std::string body;

  std::string_view header(std::string_view name) const;
  /// Status below 400, or the Error the server sent (its code and message), or one made from the status.
  Result<> ok() const;
  /// ok(), then the body as JSON.
  Result<nlohmann::json> json() const;
};

/// Receives an answer's body piece by piece; an error ends the transfer and is what the call returns.
using OnData = std::function<Result<>(std::span<const char>)>;
/// Called once with status and headers before any data; an error ends the transfer.
using OnHead = std::function<Result<>(const ClientResponse&)>;
/// Fills the buffer with the next piece of a request's body; 0 ends it early (an error on the server).
using ReadData = std::function<Result<std::size_t>(std::span<char>)>;

/// Blocking HTTP/1.1 client with one kept-alive connection, for use by one thread at a time. Every call
/// ends within its timeouts, or soon after `stop` is requested (cancelled).
/// Errors: unavailable (refused, reset, name not found), timeout, cancelled, too_large.
class Client {
 public:
  explicit Client(Url base, ClientOptions options = {});
  ~Client();
  Client(Client&&) noexcept;

  Result<ClientResponse> send(const ClientRequest& request, std::stop_token stop = {});
  /// The body goes to `on_data` and is not limited. A status of 300 or more is returned with its body
  /// in memory (limited) and `on_data` is not called.
  Result<ClientResponse> download(const ClientRequest& request, const OnHead& on_head, const OnData& on_data,
                                  std::stop_token stop = {});
  /// Sends exactly `length` bytes from `read`.
  Result<ClientResponse> upload(const ClientRequest& request, std::uint64_t length, const ReadData& read,
                                std::stop_token stop = {});
  /// Asks for an upgrade to `protocol` and then carries bytes between the connection and `near`, a connected
  /// UNIX socket, until either side ends. Errors: also what a server answers that does not upgrade.
  Result<> tunnel(ClientRequest request, std::string_view protocol, sys::Fd near, std::stop_token stop = {});
  const Url& base() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace educloud::http
