#include <cstdio>
#include <string_view>

#include "common/obs/log.hpp"
#include "common/sys/signals.hpp"
#include "nc/app/daemon.hpp"

namespace {

using namespace educloud;

constexpr int kConfigError = 2;

struct Arguments {
  const char* config = "/etc/educloud/nc.conf";
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

}  // namespace

int main(int argc, char** argv) {
  sys::block_stop_signals();
  const Arguments arguments = parse_arguments(argc, argv);
  if (arguments.version) {
    std::printf("educloud-nc %s\n", EDUCLOUD_VERSION);
    return 0;
  }
  if (arguments.wrong) {
    std::fprintf(stderr, "usage: educloud-nc [--config FILE] [--check-config] [--version]\n");
    return kConfigError;
  }
  auto config = nc::load_config(arguments.config);
  if (!config) {
    std::fprintf(stderr, "educloud-nc: %s\n", config.error().message.c_str());
    return kConfigError;
  }
  if (arguments.check_config) {
    std::printf("%s: ok\n", arguments.config);
    return 0;
  }
  obs::init_log("nc", config->common.log_level, config->common.log_file);
  nc::Daemon daemon(std::move(*config));
  if (auto ok = daemon.start(); !ok) {
    obs::error("nc.start_failed", {{"reason", ok.error().message}});
    return 1;
  }
  sys::wait_for_stop_signal();
  obs::info("nc.stopping");
  daemon.stop();
  return 0;
}
