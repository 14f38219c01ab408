#include "cc/app/app.hpp"

#include <condition_variable>

#include "cc/app/bridge.hpp"
#include "cc/disks/disk_routes.hpp"
#include "cc/relay/cache_check.hpp"
#include "cc/relay/chunk_relay.hpp"
#include "cc/relay/node_proxy.hpp"
#include "cc/relay/peers.hpp"
#include "cc/relay/submit_relay.hpp"
#include "cc/relay/tcp_relay.hpp"
#include "common/base/limits.hpp"
#include "common/bus/rabbit_bus.hpp"
#include "common/daemon/daemon.hpp"
#include "common/hostinfo/host_info.hpp"
#include "common/http/server.hpp"
#include "common/obs/log.hpp"
#include "common/obs/metrics.hpp"
#include "common/share/shared_folders.hpp"
#include "common/transfer/chunk_routes.hpp"
#include "common/transfer/grant.hpp"

namespace educloud::cc {
namespace {

/// Images named in a heartbeat (msg::CcStatus' own bound).
constexpr std::size_t kImagesTold = 400;
/// The console proxy may hold NodeProxy::kMaxCalls of them for seconds; the others prove what nodes submit.
constexpr int kHttpThreads = NodeProxy::kMaxCalls + 4;
/// Small, so that eviction has something to choose from in a small cache.
constexpr std::uint64_t kPackBytes = 64ull << 20;
/// A chunk is worth more than the connection: walrus is asked again long before a node gives up.
constexpr std::chrono::seconds kWalrusSilence{15};
/// A database disk is submitted within this.
constexpr std::int64_t kSubmitSeconds = 12 * 3600;

http::ServerOptions server_options(const Config& config) {
  auto out = daemon::server_options(config.common, "cc");
  out.threads = kHttpThreads;
  return out;
}

chunk::ChunkStore::Options store_options(const Config& config) {
  chunk::ChunkStore::Options out;
  out.max_bytes = static_cast<std::uint64_t>(config.cache_bytes);
  out.pack_bytes = std::min(kPackBytes, out.max_bytes / 8);
  out.durable = false;
  return out;
}

image::VersionStore::Options version_options() {
  image::VersionStore::Options out;
  out.is_cache = true;
  out.payload = "manifest";
  return out;
}

WalrusClients::Options walrus_options(const Config& config, const http::Url& walrus,
                                      const std::string& data_key) {
  WalrusClients::Options out;
  out.walrus = walrus;
  out.client.io_timeout = kWalrusSilence;
  out.client.tls_ca_file = config.walrus_ca_file;
  out.data_key = data_key;
  out.host = config.common.host;
  return out;
}

Upstream::Options upstream_options(const Config& config) {
  Upstream::Options out;
  out.connections = config.connections;
  out.uplink = config.uplink;
  return out;
}

/// `key`: what grants of nodes are signed with.
transfer::ChunkRouteOptions route_options(const Config& config, const std::string& key, const Clock& clock) {
  transfer::ChunkRouteOptions out;
  out.key = key;
  out.clock = &clock;
  out.max_readers = static_cast<std::size_t>(config.max_node_transfers);
  return out;
}

SubmitRelay::Options submit_options(const std::string& data_key) {
  SubmitRelay::Options out;
  out.data_key = data_key;
  return out;
}

/// Address that nodes reach this host's servers by.
std::string address_for_nodes(const Config& config) {
  const auto& listen = config.common.listen;
  const bool is_any = listen.empty() || listen == "0.0.0.0" || listen == "::";
  if (!is_any) return listen;
  if (!config.common.advertise.empty()) return config.common.advertise;
  const auto network = hostinfo::HostSampler(config.common.prefix, "").network();
  return network ? network->ip0 : std::string();
}

DiskStore::Options disk_options(const Config& config, const http::Url& walrus, const std::string& data_key,
                                const Clock& clock) {
  DiskStore::Options out;
  out.prefix = config.common.prefix;
  out.targets.listen = config.common.listen;
  out.targets.port = config.iscsi_port;
  out.targets.run_dir = config.common.prefix / "run";
  out.nbd.listen = config.common.listen;
  out.nbd.first_port = config.nbd_port;
  out.nbd.ports = config.nbd_ports;
  out.nbd.run_dir = out.targets.run_dir;
  out.portal_host = address_for_nodes(config);
  out.walrus = [walrus, data_key, &clock, host = config.common.host, ca = config.walrus_ca_file](
                   const std::string& imgid, int version) {
    transfer::ChunkRemote remote;
    remote.base = walrus;
    remote.imgid = imgid;
    remote.version = version;
    remote.grant = transfer::sign_grant(data_key, {"PUT", transfer::version_path(imgid, version), host,
                                                   clock.wall_ms() / 1000 + kSubmitSeconds});
    remote.client.io_timeout = kWalrusSilence;
    remote.client.tls_ca_file = ca;
    return remote;
  };
  return out;
}

/// Null: nodes reach walrus' folders by themselves.
std::unique_ptr<TcpRelay> folder_relay(const Config& config) {
  if (config.folders_walrus_host.empty()) return nullptr;
  TcpRelay::Options out;
  out.listen = config.common.listen;
  out.port = config.folders_port;
  out.host = config.folders_walrus_host;
  out.to_port = config.folders_walrus_port;
  return std::make_unique<TcpRelay>(std::move(out));
}

/// For this daemon and its administrator alone: guests are on nodes.
share::SharedFolders::Options folder_mounts(const Config& config) {
  share::SharedFolders::Options out;
  out.space = config.common.prefix / "space";
  out.daemon = "cc";
  out.is_for_host = false;
  if (!config.folders_mount) return out;
  out.server = {config.folders_walrus_host, config.folders_walrus_port, config.folders_user,
                config.folders_key_file, config.folders_known_hosts_file};
  return out;
}

/// Null where the nodes use the same broker and vhost as clc.
std::unique_ptr<bus::Bus> own_cluster_bus(const Config& config) {
  if (config.cluster_broker == config.common.broker) return nullptr;
  return bus::make_rabbit_bus(daemon::rabbit_options(config.common, config.cluster_broker, "cc"));
}

}  // namespace

struct App::Impl {
  Impl(Config c, std::unique_ptr<image::VersionStore> v, std::unique_ptr<chunk::ChunkStore> s,
       const http::Url& walrus_url, const std::string& data_key)
      : config(std::move(c)),
        versions(std::move(v)),
        store(std::move(s)),
        manifests(*versions),
        walrus(walrus_options(config, walrus_url, data_key), clock),
        upstream(upstream_options(config), walrus, *store, clock),
        relay(manifests, *store, upstream, walrus),
        submits(submit_options(data_key), manifests, *store, walrus, clock),
        chunks(route_options(config, data_key, clock), relay, &submits),
        peers({config.peers, data_key}, peer_table, nodes, manifests, clock),
        proxy(nodes, clock, data_key),
        disks(disk_options(config, walrus_url, data_key, clock), relay),
        disk_routes(disks, data_key, clock),
        folders(folder_relay(config)),
        mounts(folder_mounts(config)),
        bus(bus::make_rabbit_bus(daemon::rabbit_options(config.common, "cc"))),
        cluster_bus(own_cluster_bus(config)),
        bridge({*bus, cluster_bus ? *cluster_bus : *bus}, clock, nodes, peer_table, config.common.host),
        server(server_options(config), routes()) {}

  http::Router routes() {
    http::Router router;
    chunks.add_routes(router);
    peers.add_routes(router);
    proxy.add_routes(router);
    disk_routes.add_routes(router);
    router.add({.method = "GET", .pattern = "/health", .handler = [this](const http::Request&) {
                  return health();
                }});
    return router;
  }

  http::Response health() const {
    return http::json_response({{"daemon", "cc"},
                                {"host", config.common.host},
                                {"version", daemon::version()},
                                {"broker", bridge.is_ready()},
                                {"nodes", nodes.size()}});
  }

  msg::CcStatus measure(hostinfo::HostSampler& sampler) const;
  void heartbeat(std::stop_token stop);

  const Config config;
  const SystemClock clock;
  const std::int64_t started_at = clock.wall_ms();
  NodeRegistry nodes;
  PeerTable peer_table;
  const std::unique_ptr<image::VersionStore> versions;
  const std::unique_ptr<chunk::ChunkStore> store;
  ManifestCache manifests;
  WalrusClients walrus;
  Upstream upstream;
  ChunkRelay relay;
  SubmitRelay submits;
  transfer::ChunkRoutes chunks;
  Peers peers;
  NodeProxy proxy;
  DiskStore disks;
  DiskRoutes disk_routes;
  const std::unique_ptr<TcpRelay> folders;
  share::SharedFolders mounts;
  const std::unique_ptr<bus::Bus> bus;
  const std::unique_ptr<bus::Bus> cluster_bus;  // null: the nodes are on `bus` too
  Bridge bridge;
  http::Server server;
  std::jthread heart;
  std::jthread check;
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
  for (auto& problem : mounts.problems()) status.service_data.warnings.push_back(std::move(problem));
  status.ccid = hostinfo::status_id("cc", status.net_data);
  for (const auto& info : manifests.list()) {
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
      const bool ready = bridge.is_ready();
      obs::metrics().gauge("educloud_cc_broker_connected",
                           "1 while all connections to clc's and the nodes' brokers are up", ready);
      obs::metrics().gauge("educloud_cc_nodes", "Nodes heard of", static_cast<double>(nodes.size()));
      if (ready) {
        bridge.retry_parked();
        bridge.send_heartbeat(measure(sampler));
      }
      // What came since the last commit would be fetched again after a kill.
      if (auto flushed = store->flush(); !flushed) {
        obs::error("cache.broken",
                   {{"error", flushed.error().message}, {"remedy", "check the disk, restart"}});
      }
    } catch (const std::exception& error) {
      obs::error("heartbeat.threw", {{"error", error.what()}});
    }
    std::unique_lock lock(mutex);
    // Until the broker answers for the first time, look more often: clc then knows us at once.
    const auto pause =
        bridge.is_ready() ? std::chrono::milliseconds{limits::kHeartbeat} : std::chrono::milliseconds{250};
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
  auto versions = image::VersionStore::open(config.common.prefix, version_options());
  if (!versions) return fail(versions.error(), "prefix");
  auto store = chunk::ChunkStore::open(config.common.prefix / "chunks", store_options(config));
  if (!store) return fail(store.error(), "prefix");
  return std::unique_ptr<App>(new App(
      std::make_unique<Impl>(std::move(config), std::move(*versions), std::move(*store), *walrus, *key)));
}

Result<> App::start() {
  if (auto ok = impl_->server.start(); !ok) return ok;
  if (impl_->folders) {
    if (auto ok = impl_->folders->start(); !ok) return ok;
  }
  impl_->mounts.start();
  impl_->disks.start();
  impl_->bridge.subscribe();
  impl_->bus->start({});
  if (impl_->cluster_bus) impl_->cluster_bus->start({});
  impl_->heart = std::jthread([this](std::stop_token stop) { impl_->heartbeat(std::move(stop)); });
  impl_->check = std::jthread([this](std::stop_token stop) {
    check_after_reboot(*impl_->store, impl_->config.common.prefix / "chunks" / "checked_boot", stop);
  });
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
  if (impl_->check.joinable()) {
    impl_->check.request_stop();
    impl_->check.join();
  }
  impl_->bus->stop();
  if (impl_->cluster_bus) impl_->cluster_bus->stop();
  impl_->submits.stop();
  impl_->chunks.stop();
  impl_->server.stop();
  if (impl_->folders) impl_->folders->stop();
  impl_->mounts.stop();
  impl_->disks.stop();
  impl_->upstream.stop();
  (void)impl_->store->flush();
}

int App::port() const {
  return impl_->server.port();
}

bool App::is_ready() const {
  return impl_->bridge.is_ready();
}

}  // namespace educloud::cc
