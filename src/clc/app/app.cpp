#include "clc/app/app.hpp"

#include "clc/app/cloud_impl.hpp"
#include "clc/app/dead_letters.hpp"
#include "clc/app/event_hub.hpp"
#include "clc/app/heartbeats.hpp"
#include "clc/app/leases.hpp"
#include "clc/app/outbox_relay.hpp"
#include "clc/app/status_consumer.hpp"
#include "clc/app/ticker.hpp"
#include "common/bus/rabbit_bus.hpp"
#include "common/daemon/daemon.hpp"
#include "common/http/server.hpp"
#include "common/obs/log.hpp"
#include "common/sys/file.hpp"
#include "common/transfer/grant.hpp"

namespace educloud::clc {
namespace {

http::ServerOptions server_options(const Config& config) {
  auto out = daemon::server_options(config.common, "clc");
  // The API's console and screenshot proxy may hold 8 of them for seconds, a login for a part of one.
  out.threads = 12;
  return out;
}

CloudOptions cloud_options(const Config& config, std::string version, std::string data_key) {
  CloudOptions out;
  out.version = std::move(version);
  out.walrus_url = config.walrus_url;
  out.data_key = std::move(data_key);
  out.placement = config.placement;
  out.gate = config.gate;
  out.display_port_first = config.display_port_first;
  out.display_port_last = config.display_port_last;
  out.web_port_first = config.web_port_first;
  out.web_port_last = config.web_port_last;
  out.backup = config.backup;
  out.max_snapshots = config.max_snapshots;
  out.drain_warning_ms = std::int64_t{config.drain_warning_s} * 1000;
  out.drain_idle_ms = std::int64_t{config.drain_idle_min} * 60'000;
  out.session_ms = std::int64_t{config.session_hours} * 3'600'000;
  return out;
}

}  // namespace

struct App::Impl {
  Impl(const Config& config, std::unique_ptr<store::Store> opened, CloudOptions options,
       const MakeRoutes& make_routes)
      : store(std::move(opened)),
        heartbeats(clock),
        cloud(*store, heartbeats, events, clock, std::move(options)),
        bus(bus::make_rabbit_bus(daemon::rabbit_options(config.common, "clc"))),
        relay(*store, *bus, clock),
        statuses(*store, cloud.impl().engine, clock),
        dead_letters(*store, clock),
        ticker(*store, cloud.impl().engine, heartbeats, clock),
        leases(*store, cloud.impl().engine, heartbeats, *bus, clock),
        server(server_options(config), make_routes(cloud)) {}

  // In the order of who needs whom; destroyed the other way round.
  SystemClock clock;
  std::unique_ptr<store::Store> store;
  Heartbeats heartbeats;
  EventHub events;
  Cloud cloud;
  std::unique_ptr<bus::Bus> bus;
  OutboxRelay relay;
  StatusConsumer statuses;
  DeadLetters dead_letters;
  Ticker ticker;
  Leases leases;
  http::Server server;
  bool stopped = false;
};

App::App(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
App::~App() {
  stop();
}

Result<std::unique_ptr<App>> App::create(Config config, std::string version, const MakeRoutes& make_routes) {
  auto data_key = transfer::load_key(config.data_key_file);
  if (!data_key) return fail(data_key.error());
  if (auto ok = sys::make_directories(config.common.state_dir, 0750); !ok) return fail(ok.error());
  auto opened = store::Store::open(database_file(config.common.state_dir));
  if (!opened) return fail(opened.error());
  auto options = cloud_options(config, std::move(version), std::move(*data_key));
  return std::unique_ptr<App>(
      new App(std::make_unique<Impl>(config, std::move(*opened), std::move(options), make_routes)));
}

Result<> App::start() {
  auto& impl = *impl_;
  impl.cloud.on_outbox([&impl] { impl.relay.wake(); });
  impl.cloud.broker_state([&impl] { return impl.bus->is_ready(); });
  impl.heartbeats.subscribe(*impl.bus);
  impl.statuses.subscribe(*impl.bus);
  impl.dead_letters.subscribe(*impl.bus);
  impl.ticker.also([&impl] { return impl.leases.tick(); });
  if (auto ok = impl.ticker.prepare(); !ok) return ok;
  if (auto ok = impl.server.start(); !ok) return ok;
  impl.bus->start([&impl] { impl.relay.reconnected(); });
  impl.relay.start();
  impl.ticker.start();
  impl.cloud.safety().start();
  obs::info("clc.started", {{"port", impl.server.port()}, {"version", impl.cloud.options().version}});
  return {};
}

void App::stop() {
  auto& impl = *impl_;
  if (std::exchange(impl.stopped, true)) return;
  impl.events.close();
  impl.cloud.safety().stop();  // first: a backup under way may hold a request
  impl.server.stop();
  impl.ticker.stop();
  impl.relay.stop();
  impl.bus->stop();
  impl.store->close();
}

int App::port() const {
  return impl_->server.port();
}
Cloud& App::cloud() {
  return impl_->cloud;
}

}  // namespace educloud::clc
