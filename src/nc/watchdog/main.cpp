#include "common/daemon/daemon.hpp"
#include "common/obs/log.hpp"
#include "nc/app/config.hpp"
#include "nc/watchdog/watchdog.hpp"

namespace {

using namespace educloud;

class Running : public daemon::Service {
 public:
  explicit Running(const nc::Config& config)
      : watchdog_(
            {.state_dir = config.common.state_dir},
            [uri = config.libvirt_uri](const InstanceId& insid) { return nc::virsh_destroy(uri, insid); },
            clock_) {
    watchdog_.start();
    obs::info("watchdog.started", {{"state_dir", config.common.state_dir.string()}});
  }
  void stop() override { watchdog_.stop(); }

 private:
  const SystemClock clock_;
  nc::Watchdog watchdog_;
};

Result<daemon::Loaded> load(const std::filesystem::path& file) {
  auto config = nc::load_config(file);
  if (!config) return fail(config.error());
  config->common.log_file.clear();  // it is nc's
  return daemon::Loaded{config->common, [config = *config]() -> Result<std::unique_ptr<daemon::Service>> {
                          return std::unique_ptr<daemon::Service>(std::make_unique<Running>(config));
                        }};
}

}  // namespace

int main(int argc, char** argv) {
  return daemon::daemon_main(
      argc, argv,
      {"nc-watchdog", "ends servers whose lease has run out when educloud-nc does not; give it nc.conf",
       load});
}
