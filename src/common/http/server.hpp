#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "common/http/message.hpp"

namespace educloud::http {

struct ServerOptions {
  std::string address = "127.0.0.1";
  int port = 0;  ///< 0: any free one, see `Server::port`
  int threads = 2;
  int max_connections = 2048;
  std::chrono::seconds header_timeout{15};  ///< whole header; also the idle time of a kept-alive connection
  std::chrono::seconds body_timeout{60};    ///< without a single byte of progress
  std::string tls_certificate_file = {};    ///< both set: TLS 1.2 or newer
  std::string tls_key_file = {};
  std::string server_name = "educloud";               ///< Server header
  std::chrono::milliseconds event_keepalive{15'000};  ///< a comment line on a silent event stream
};

/// HTTP/1.1 server. Handlers run on its threads and may block for milliseconds (a SQLite read, an open);
/// longer work belongs to a worker. A handler that throws is answered 500 and logged.
class Server {
 public:
  Server(ServerOptions options, Router router);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  /// Errors: the address cannot be bound (named), the certificate cannot be read.
  Result<> start();
  /// Stops accepting, lets requests in progress end for up to `grace`, then cuts them. Waits for handlers
  /// that are running. Idempotent. Never call it from a handler.
  void stop(std::chrono::seconds grace = std::chrono::seconds{3});
  int port() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace educloud::http
