#pragma once

#include <memory>
#include <string>

#include "common/base/result.hpp"

namespace educloud::cc {

/// Passes TCP connections on to one address, byte for byte: nodes that reach only their cc mount walrus'
/// folders through it. What passes is SSH between the node and walrus, so there is nothing here to read or to
/// check. Bounded: connections beyond `max_connections` are closed at once.
class TcpRelay {
 public:
  struct Options {
    std::string listen;  ///< address; empty: all
    int port = 0;        ///< 0: any that is free
    std::string host;    ///< where to
    int to_port = 0;
    std::size_t max_connections = 512;
  };

  explicit TcpRelay(Options options);
  ~TcpRelay();

  /// Errors: conflict (the port is taken), invalid_argument.
  Result<> start();
  void stop();
  int port() const;
  std::size_t connections() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace educloud::cc
