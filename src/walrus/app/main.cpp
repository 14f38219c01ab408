#include <cstdio>
#include <string_view>

#include "common/base/clock.hpp"
#include "common/bus/rabbit_bus.hpp"
#include "common/obs/log.hpp"
#include "common/obs/metrics.hpp"
#include "common/sys/signals.hpp"
#include "common/transfer/grant.hpp"
#include "walrus/app/config.hpp"
#include "walrus/app/service.hpp"

namespace {

using namespace educloud;

constexpr int kConfigError = 2;

struct Arguments {
  const char* config = "/etc/educloud/walrus.conf";
  bool check_config = false;
  bool version = false;
  bool wrong = false;
};

Arguments parse_arguments(int argc, char** argv) {
  Arguments out;
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (word == "--config" && i + 1 < argc) {
      out.config = argv[++i];
    } else if (word == "--check-config") {
      out.check_config = true;
    } else if (word == "--version") {
      out.version = true;
    } else {
      out.wrong = true;
    }
  }
  return out;
}

int complain(const Error& error) {
  std::fprintf(stderr, "educloud-walrus: %s\n", error.message.c_str());
  return kConfigError;
}

std::unique_ptr<bus::Bus> make_bus(const walrus::WalrusConfig& config) {
  bus::RabbitOptions options;
  const auto& broker = config.common.broker;
  options.host = broker.host;
  options.port = broker.port;
  options.vhost = broker.vhost;
  options.user = broker.user;
  options.password_file = broker.password_file.string();
  options.tls_ca_file = broker.tls_ca_file;
  options.connection_name = "walrus";
  return bus::make_rabbit_bus(std::move(options));
}

int run(const walrus::WalrusConfig& config) {
  auto data_key = transfer::load_key(config.data_key_file);
  if (!data_key) return complain(data_key.error());
  obs::init_log("walrus", config.common.log_level, config.common.log_file);
  const SystemClock clock;
  const auto bus = make_bus(config);
  walrus::Service service(config, std::move(*data_key), *bus, clock);
  if (auto ok = service.start(); !ok) {
    obs::error("walrus.start_failed", {{"error", ok.error().message}});
    return 1;
  }
  if (auto ok = obs::metrics().start(config.common.prefix, "walrus"); !ok) {
    obs::warn("metrics.not_written", {{"error", ok.error().message}});
  }
  sys::wait_for_stop_signal();
  obs::info("walrus.stopping");
  service.stop();
  obs::metrics().stop();
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  sys::block_stop_signals();
  const Arguments arguments = parse_arguments(argc, argv);
  if (arguments.version) {
    std::printf("educloud-walrus %s\n", EDUCLOUD_VERSION);
    return 0;
  }
  if (arguments.wrong) {
    std::fprintf(stderr, "usage: educloud-walrus [--config FILE] [--check-config] [--version]\n");
    return kConfigError;
  }
  auto config = walrus::load_config(arguments.config);
  if (!config) return complain(config.error());
  if (arguments.check_config) {
    std::printf("%s: ok\n", arguments.config);
    return 0;
  }
  return run(*config);
}
