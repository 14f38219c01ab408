#include "common/daemon/daemon.hpp"
#include "nc/app/daemon.hpp"

namespace {

using namespace educloud;

class Running : public daemon::Service {
 public:
  explicit Running(nc::Config config) : daemon_(std::move(config)) {}
  Result<> start() { return daemon_.start(); }
  void stop() override { daemon_.stop(); }

 private:
  nc::Daemon daemon_;
};

Result<std::unique_ptr<daemon::Service>> start(const nc::Config& config) {
  auto running = std::make_unique<Running>(config);
  if (auto ok = running->start(); !ok) return fail(ok.error());
  return running;
}

Result<daemon::Loaded> load(const std::filesystem::path& file) {
  auto config = nc::load_config(file);
  if (!config) return fail(config.error());
  return daemon::Loaded{config->common, [config = *config] { return start(config); }};
}

}  // namespace

int main(int argc, char** argv) {
  return daemon::daemon_main(argc, argv,
                             {"nc", "node controller: runs the virtual machines of this host", load});
}
