#include <iostream>
#include <string_view>

#include "clc/api/api.hpp"
#include "clc/app/app.hpp"
#include "common/obs/log.hpp"
#include "common/obs/metrics.hpp"
#include "common/sys/signals.hpp"

namespace {

using namespace educloud;

constexpr int kOk = 0, kFailed = 1, kUsage = 2;
constexpr const char* kHelp =
    "educloud-clc - cloud controller: accounts, catalogue, placement, tasks and the HTTP API\n"
    "\n"
    "  educloud-clc --config FILE [--check-config]\n"
    "  educloud-clc --version | --help\n"
    "\n"
    "Exit: 0 stopped by SIGTERM or SIGINT, 1 could not start, 2 wrong usage or config.\n";

struct Arguments {
  std::string config;
  bool check_only = false;
};

int run(const Arguments& arguments) {
  auto config = clc::load_config(arguments.config);
  if (!config) {
    std::cerr << "educloud-clc: " << config.error().message << "\n";
    return kUsage;
  }
  if (arguments.check_only) {
    std::cout << arguments.config << ": ok\n";
    return kOk;
  }
  sys::block_stop_signals();
  obs::init_log("clc", config->common.log_level, config->common.log_file);
  const auto prefix = config->common.prefix;
  auto app = clc::App::create(std::move(*config), EDUCLOUD_VERSION,
                              [](clc::Cloud& cloud) { return clc::make_api(cloud); });
  if (!app) {
    obs::error("clc.not_started", {{"error", app.error().message}});
    return kFailed;
  }
  if (auto ok = (*app)->start(); !ok) {
    obs::error("clc.not_started", {{"error", ok.error().message}});
    return kFailed;
  }
  if (auto ok = obs::metrics().start(prefix, "clc"); !ok) {
    obs::warn("metrics.not_written", {{"error", ok.error().message}});
  }
  sys::wait_for_stop_signal();
  obs::info("clc.stopping");
  (*app)->stop();
  obs::metrics().stop();
  return kOk;
}

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--version") {
      std::cout << "educloud-clc " EDUCLOUD_VERSION "\n";
      return kOk;
    }
    if (argument == "--help" || argument == "-h") {
      std::cout << kHelp;
      return kOk;
    }
    if (argument == "--check-config") {
      arguments.check_only = true;
    } else if (argument == "--config" && i + 1 < argc) {
      arguments.config = argv[++i];
    } else {
      std::cerr << "educloud-clc: unknown argument '" << argument << "'\n" << kHelp;
      return kUsage;
    }
  }
  if (arguments.config.empty()) {
    std::cerr << kHelp;
    return kUsage;
  }
  try {
    return run(arguments);
  } catch (const std::exception& error) {
    std::cerr << "educloud-clc: " << error.what() << "\n";
    return kFailed;
  }
}
