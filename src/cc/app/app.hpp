#pragma once

#include <memory>

#include "cc/app/config.hpp"

namespace educloud::cc {

/// A whole cluster controller in one object: what main() runs and what tests run in their process.
class App {
 public:
  /// Reads the data key and opens the cache. Errors: a file that cannot be read, a prefix in use.
  static Result<std::unique_ptr<App>> create(Config config);
  ~App();
  App(const App&) = delete;
  App& operator=(const App&) = delete;

  /// Serves HTTP, connects to the broker (waiting for it if it is away), begins the heartbeat.
  /// Errors: the port is taken.
  Result<> start();
  /// Ends in reverse order. What is under way is continued after the next start. Idempotent.
  void stop();
  int port() const;
  bool is_ready() const;

 private:
  struct Impl;
  explicit App(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace educloud::cc
