#pragma once

#include <functional>
#include <memory>

#include "clc/app/cloud.hpp"
#include "clc/app/config.hpp"
#include "common/http/message.hpp"

namespace educloud::clc {

/// Makes the routes of the HTTP server; the program gives clc_api's, a test may give none.
using MakeRoutes = std::function<http::Router(Cloud&)>;

/// The whole daemon: store, broker, relay, ticker and HTTP server, wired.
class App {
 public:
  /// Opens the database (made if it is missing). Errors: see Store::open; a bad key file.
  static Result<std::unique_ptr<App>> create(Config config, std::string version,
                                             const MakeRoutes& make_routes);
  ~App();
  App(const App&) = delete;
  App& operator=(const App&) = delete;

  /// Errors: the HTTP address cannot be bound.
  Result<> start();
  /// Orderly: no new requests, then no new messages, then what is queued for the database. Idempotent.
  void stop();
  /// Of the HTTP server.
  int port() const;
  Cloud& cloud();

 private:
  struct Impl;
  explicit App(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace educloud::clc
