#include "cc/app/app.hpp"
#include "common/daemon/daemon.hpp"

namespace {

using namespace educloud;

class Running : public daemon::Service {
 public:
  explicit Running(std::unique_ptr<cc::App> app) : app_(std::move(app)) {}
  void stop() override { app_->stop(); }

 private:
  std::unique_ptr<cc::App> app_;
};

Result<std::unique_ptr<daemon::Service>> start(const cc::Config& config) {
  auto app = cc::App::create(config);
  if (!app) return fail(app.error());
  if (auto ok = (*app)->start(); !ok) return fail(ok.error());
  return std::make_unique<Running>(std::move(*app));
}

Result<daemon::Loaded> load(const std::filesystem::path& file) {
  auto config = cc::load_config(file);
  if (!config) return fail(config.error());
  return daemon::Loaded{config->common, [config = *config] { return start(config); }};
}

}  // namespace

int main(int argc, char** argv) {
  return daemon::daemon_main(
      argc, argv,
      {"cc", "cluster controller: relays commands, statuses and images between the cloud and its nodes",
       load});
}
