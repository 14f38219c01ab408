#include "common/base/clock.hpp"
#include "common/daemon/daemon.hpp"
#include "common/transfer/grant.hpp"
#include "walrus/app/config.hpp"
#include "walrus/app/service.hpp"

namespace {

using namespace educloud;

class Running : public daemon::Service {
 public:
  Running(const walrus::WalrusConfig& config, std::string data_key)
      : bus_(bus::make_rabbit_bus(daemon::rabbit_options(config.common, "walrus"))),
        service_(config, std::move(data_key), *bus_, clock_) {}
  Result<> start() { return service_.start(); }
  void stop() override { service_.stop(); }

 private:
  const SystemClock clock_;
  std::unique_ptr<bus::Bus> bus_;
  walrus::Service service_;
};

Result<std::unique_ptr<daemon::Service>> start(const walrus::WalrusConfig& config) {
  auto data_key = transfer::load_key(config.data_key_file);
  if (!data_key) return fail(data_key.error());
  auto running = std::make_unique<Running>(config, std::move(*data_key));
  if (auto ok = running->start(); !ok) return fail(ok.error());
  return running;
}

Result<daemon::Loaded> load(const std::filesystem::path& file) {
  auto config = walrus::load_config(file);
  if (!config) return fail(config.error());
  return daemon::Loaded{config->common, [config = *config] { return start(config); }};
}

}  // namespace

int main(int argc, char** argv) {
  return daemon::daemon_main(argc, argv, {"walrus", "image store: keeps images and their versions", load});
}
