#include "cc/app/app.hpp"

#include <condition_variable>

#include "cc/app/bridge.hpp"
#include "cc/relay/image_cache.hpp"
#include "cc/relay/node_proxy.hpp"
#include "cc/relay/upload_relay.hpp"
#include "common/base/limits.hpp"
#include "common/bus/rabbit_bus.hpp"
#include "common/daemon/daemon.hpp"
#include "common/hostinfo/host_info.hpp"
#include "common/http/server.hpp"
#include "common/obs/log.hpp"
#include "common/obs/metrics.hpp"
#include "common/transfer/grant.hpp"

namespace educloud::cc {
namespace {

/// Images named in a heartbeat (msg::CcStatus' own bound).
constexpr std::size_t kImagesTold = 400;
/// The console proxy may hold NodeProxy::kMaxCalls of them for seconds.
constexpr int kHttpThreads = NodeProxy::kMaxCalls + 2;

http::ServerOptions server_options(const Config& config) {
  auto out = daemon::server_options(config.common, "cc");
  out.threads = kHttpThreads;
  return out;
}

ImageCache::Options cache_options(const Config& config, const http::Url& walrus,
                                  const std::string& data_key) {
  ImageCache::Options out;
  out.walrus = walrus;
  out.walrus_ca_file = config.walrus_ca_file;
  out.data_key = data_key;
  out.host = config.common.host;
  out.max_bytes = static_cast<std::uint64_t>(config.cache_max_bytes);
  return out;
}

UploadRelayOptions upload_options(const Config& config, const http::Url& walrus,
                                  const std::string& data_key) {
  UploadRelayOptions out;
  out.folder = config.common.prefix / "tmp" / "uploads";
  out.walrus = walrus;
  out.walrus_ca_file = config.walrus_ca_file;
  out.data_key = data_key;
  out.host = config.common.host;
  out.max_bytes = static_cast<std::uint64_t>(config.max_upload_bytes);
  return out;
}

}  // namespace

struct App::Impl {
  Impl(Config c, std::unique_ptr<image::VersionStore> s, const http::Url& walrus, const std::string& data_key)
      : config(std::move(c)),
        store(std::move(s)),
        cache(*store, clock, cache_options(config, walrus, data_key)),
        uploads(upload_relay(upload_options(config, walrus, data_key), &cache)),
        proxy(nodes, clock, data_key),
        bus(bus::make_rabbit_bus(daemon::rabbit_options(config.common, "cc"))),
        bridge(*bus, clock, nodes, config.common.host),
        server(server_options(config), routes()) {}

  http::Router routes() {
    http::Router router;
    cache.add_routes(router);
    uploads.add_routes(router);
    proxy.add_routes(router);
    router.add({.method = "GET", .pattern = "/health", .handler = [this](const http::Request&) {
                  return health();
                }});
    return router;
  }

  http::Response health() const {
    return http::json_response({{"daemon", "cc"},
                                {"host", config.common.host},
                                {"version", daemon::version()},
                                {"broker", bus->is_ready()},
                                {"nodes", nodes.size()}});
  }

  msg::CcStatus measure(hostinfo::HostSampler& sampler) const;
  void heartbeat(std::stop_token stop);

  const Config config;
  const SystemClock clock;
  const std::int64_t started_at = clock.wall_ms();
  NodeRegistry nodes;
  const std::unique_ptr<image::VersionStore> store;
  ImageCache cache;
  transfer::UploadServer uploads;
  NodeProxy proxy;
  const std::unique_ptr<bus::Bus> bus;
  Bridge bridge;
  http::Server server;
  std::jthread heart;
};

msg::CcStatus App::Impl::measure(hostinfo::HostSampler& sampler) const {
  msg::CcStatus status;
  status.host = config.common.host;
  status.ts = clock.wall_ms();
  status.service_data.version = daemon::version();
  status.service_data.started_at = started_at;
  status.service_data.data_port = server.port();
  if (auto hardware = sampler.hardware()) {
    status.hardware_data = *hardware;
  } else {
    status.service_data.warnings.push_back(hardware.error().message);
  }
  if (auto network = sampler.network()) {
    status.net_data = *network;
  } else {
    status.service_data.warnings.push_back(network.error().message);
  }
  status.ccid = hostinfo::status_id("cc", status.net_data);
  for (const auto& info : cache.list()) {
    if (status.images.size() >= kImagesTold) break;
    status.images.push_back({info.image, info.version, info.digest});
  }
  return status;
}

void App::Impl::heartbeat(std::stop_token stop) {
  hostinfo::HostSampler sampler(config.common.prefix, config.common.advertise);
  std::mutex mutex;
  std::condition_variable_any tick;
  while (!stop.stop_requested()) {
    try {
      const bool ready = bus->is_ready();
      obs::metrics().gauge("educloud_cc_broker_connected", "1 while both connections to the broker are up",
                           ready);
      obs::metrics().gauge("educloud_cc_nodes", "Nodes heard of", static_cast<double>(nodes.size()));
      if (ready) bridge.send_heartbeat(measure(sampler));
    } catch (const std::exception& error) {
      obs::error("heartbeat.threw", {{"error", error.what()}});
    }
    std::unique_lock lock(mutex);
    // Until the broker answers for the first time, look more often: clc then knows us at once.
    const auto pause =
        bus->is_ready() ? std::chrono::milliseconds{limits::kHeartbeat} : std::chrono::milliseconds{250};
    tick.wait_for(lock, stop, pause, [] { return false; });
  }
}

App::App(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

App::~App() {
  stop();
}

Result<std::unique_ptr<App>> App::create(Config config) {
  auto walrus = http::Url::parse(config.walrus_url);
  if (!walrus) return fail(walrus.error(), "walrus_url");
  auto key = transfer::load_key(config.data_key_file);
  if (!key) return fail(key.error(), "data_key_file");
  auto store = image::VersionStore::open(config.common.prefix);
  if (!store) return fail(store.error(), "prefix");
  return std::unique_ptr<App>(
      new App(std::make_unique<Impl>(std::move(config), std::move(*store), *walrus, *key)));
}

Result<> App::start() {
  if (auto ok = impl_->uploads.start(); !ok) return ok;
  if (auto ok = impl_->server.start(); !ok) return ok;
  impl_->bridge.subscribe();
  impl_->bus->start({});
  impl_->heart = std::jthread([this](std::stop_token stop) { impl_->heartbeat(std::move(stop)); });
  obs::info("cc.started", {{"host", impl_->config.common.host},
                           {"listen", impl_->config.common.listen},
                           {"port", impl_->server.port()},
                           {"prefix", impl_->config.common.prefix.string()}});
  return {};
}

void App::stop() {
  if (impl_->heart.joinable()) {
    impl_->heart.request_stop();
    impl_->heart.join();
  }
  impl_->bus->stop();
  impl_->server.stop();
  impl_->cache.stop();
  impl_->uploads.stop();
}

int App::port() const {
  return impl_->server.port();
}

bool App::is_ready() const {
  return impl_->bus->is_ready();
}

}  // namespace educloud::cc
