#include "common/daemon/daemon.hpp"

#include <iostream>

#include "common/obs/log.hpp"
#include "common/obs/metrics.hpp"
#include "common/sys/signals.hpp"

namespace educloud::daemon {
namespace {

constexpr int kOk = 0, kFailed = 1, kUsage = 2;

struct Arguments {
  std::filesystem::path config;
  bool check_only = false;
};

std::string help_of(const Program& program) {
  const std::string name = "educloud-" + std::string(program.role);
  return name + " - " + std::string(program.summary) + "\n\n  " + name +
         " [--config FILE] [--check-config]\n  " + name + " --version | --help\n\nFILE is /etc/educloud/" +
         std::string(program.role) +
         ".conf unless given.\nExit: 0 stopped by SIGTERM or SIGINT, 1 could not start, 2 wrong usage or "
         "config.\n";
}

int run(const Program& program, const Arguments& arguments) {
  const std::string role(program.role);
  auto loaded = program.load(arguments.config);
  if (!loaded) {
    std::cerr << "educloud-" << role << ": " << loaded.error().message << "\n";
    return kUsage;
  }
  if (arguments.check_only) {
    std::cout << arguments.config.string() << ": ok\n";
    return kOk;
  }
  // Before any thread: they inherit the mask, so only wait_for_stop_signal ever sees the signal.
  sys::block_stop_signals();
  obs::init_log(role, loaded->common.log_level, loaded->common.log_file);
  auto service = loaded->start();
  if (!service) {
    obs::error(role + ".not_started", {{"error", service.error().message}});
    return kFailed;
  }
  if (auto ok = obs::metrics().start(loaded->common.prefix, role); !ok) {
    obs::warn("metrics.not_written", {{"error", ok.error().message}});
  }
  sys::wait_for_stop_signal();
  obs::info(role + ".stopping");
  (*service)->stop();
  obs::metrics().stop();
  return kOk;
}

}  // namespace

int daemon_main(int argc, char** argv, const Program& program) {
  Arguments arguments{.config = "/etc/educloud/" + std::string(program.role) + ".conf"};
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (word == "--version") {
      std::cout << "educloud-" << program.role << " " << version() << "\n";
      return kOk;
    }
    if (word == "--help" || word == "-h") {
      std::cout << help_of(program);
      return kOk;
    }
    if (word == "--check-config") {
      arguments.check_only = true;
    } else if (word == "--config" && i + 1 < argc) {
      arguments.config = argv[++i];
    } else {
      std::cerr << "educloud-" << program.role << ": unknown argument '" << word << "'\n" << help_of(program);
      return kUsage;
    }
  }
  try {
    return run(program, arguments);
  } catch (const std::exception& error) {
    std::cerr << "educloud-" << program.role << ": " << error.what() << "\n";
    return kFailed;
  }
}

std::string_view version() {
  return EDUCLOUD_VERSION;
}

bus::RabbitOptions rabbit_options(const config::DaemonConfig& config, std::string_view role) {
  return rabbit_options(config, config.broker, role);
}

bus::RabbitOptions rabbit_options(const config::DaemonConfig& config, const config::BrokerConfig& broker,
                                  std::string_view role) {
  bus::RabbitOptions out;
  out.host = broker.host;
  out.port = broker.port;
  out.vhost = broker.vhost;
  out.user = broker.user;
  out.password_file = broker.password_file.string();
  out.tls_ca_file = broker.tls_ca_file;
  out.connection_name = std::string(role) + "-" + config.host;
  return out;
}

http::ServerOptions server_options(const config::DaemonConfig& config, std::string_view role) {
  http::ServerOptions out;
  out.address = config.listen;
  out.port = config.port;
  out.tls_certificate_file = config.tls.certificate_file;
  out.tls_key_file = config.tls.key_file;
  out.server_name = "educloud-" + std::string(role);
  return out;
}

}  // namespace educloud::daemon
