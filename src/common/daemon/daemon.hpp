#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string_view>

#include "common/base/result.hpp"
#include "common/bus/rabbit_bus.hpp"
#include "common/config/daemon_config.hpp"
#include "common/http/server.hpp"

namespace educloud::daemon {

/// What runs between start and SIGTERM. Its destructor releases what `stop` ended.
class Service {
 public:
  virtual ~Service() = default;
  virtual void stop() = 0;
};

/// A config file that was read and found good.
struct Loaded {
  config::DaemonConfig common;
  /// Called once, after logging is set up. Errors: what kept it from starting.
  std::function<Result<std::unique_ptr<Service>>()> start;
};

/// What one daemon brings to `daemon_main`.
struct Program {
  std::string_view role;     ///< clc, walrus, cc or nc: name of its log and metrics
  std::string_view summary;  ///< one line for --help
  std::function<Result<Loaded>(const std::filesystem::path& config)> load;
};

/// main() of every daemon: arguments, config, log, metrics, signals. Returns the exit code: 0 stopped by
/// SIGTERM or SIGINT, 1 could not start, 2 wrong usage or config.
int daemon_main(int argc, char** argv, const Program& program);

/// The version of this build.
std::string_view version();

/// The broker of [broker], under the connection name "<role>-<host>".
bus::RabbitOptions rabbit_options(const config::DaemonConfig& config, std::string_view role);
/// Another broker of a daemon that talks to two, under the same connection name.
bus::RabbitOptions rabbit_options(const config::DaemonConfig& config, const config::BrokerConfig& broker,
                                  std::string_view role);
/// The daemon's own HTTP server: listen, port and [tls].
http::ServerOptions server_options(const config::DaemonConfig& config, std::string_view role);

}  // namespace educloud::daemon
