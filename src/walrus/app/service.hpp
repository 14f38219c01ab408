#pragma once

#include <memory>
#include <string>

#include "common/base/clock.hpp"
#include "common/bus/bus.hpp"
#include "walrus/app/config.hpp"

namespace educloud::walrus {

/// The daemon without its process: store, uploads, commands, HTTP. `bus` and `clock` outlive it.
class Service {
 public:
  Service(WalrusConfig config, std::string data_key, bus::Bus& bus, const Clock& clock);
  ~Service();
  Service(const Service&) = delete;
  Service& operator=(const Service&) = delete;

  /// Opens everything, goes on with what a killed process left, subscribes, listens.
  /// Errors: a directory, the inbox or the address is not usable (named).
  Result<> start();
  /// Orderly end: what is being processed is continued at the next start. Idempotent.
  void stop();
  /// Of its HTTP server, once started.
  int port() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace educloud::walrus
