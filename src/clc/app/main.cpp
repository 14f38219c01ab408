#include "clc/api/api.hpp"
#include "clc/app/app.hpp"
#include "common/daemon/daemon.hpp"

namespace {

using namespace educloud;

class Running : public daemon::Service {
 public:
  explicit Running(std::unique_ptr<clc::App> app) : app_(std::move(app)) {}
  void stop() override { app_->stop(); }

 private:
  std::unique_ptr<clc::App> app_;
};

Result<std::unique_ptr<daemon::Service>> start(const clc::Config& config) {
  const auto make_routes = [](clc::Cloud& cloud) { return clc::make_api(cloud); };
  auto app = clc::App::create(config, std::string(daemon::version()), make_routes);
  if (!app) return fail(app.error());
  if (auto ok = (*app)->start(); !ok) return fail(ok.error());
  return std::make_unique<Running>(std::move(*app));
}

Result<daemon::Loaded> load(const std::filesystem::path& file) {
  auto config = clc::load_config(file);
  if (!config) return fail(config.error());
  return daemon::Loaded{config->common, [config = *config] { return start(config); }};
}

}  // namespace

int main(int argc, char** argv) {
  return daemon::daemon_main(
      argc, argv, {"clc", "cloud controller: accounts, catalogue, placement, tasks and the HTTP API", load});
}
