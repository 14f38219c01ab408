#include "nc/app/daemon.hpp"

#include <grp.h>
#include <unistd.h>

#include "common/bus/rabbit_bus.hpp"
#include "common/daemon/daemon.hpp"
#include "common/http/server.hpp"
#include "common/inbox/inbox.hpp"
#include "common/obs/log.hpp"
#include "common/sys/file.hpp"
#include "common/sys/thread_pool.hpp"
#include "common/transfer/grant.hpp"
#include "nc/app/api.hpp"
#include "nc/app/boot_marker.hpp"
#include "nc/app/folders.hpp"
#include "nc/app/heartbeat.hpp"
#include "nc/app/inventory.hpp"
#include "nc/app/lease_keeper.hpp"
#include "nc/app/move_desk.hpp"
#include "nc/app/sweeper.hpp"
#include "nc/app/upkeep.hpp"
#include "nc/hypervisor/fake_hypervisor.hpp"
#include "nc/hypervisor/libvirt_hypervisor.hpp"

namespace educloud::nc {
namespace {

constexpr std::uint16_t kPrefetch = 4;

std::unique_ptr<Hypervisor> make_hypervisor(const Config& config) {
  if (config.hypervisor == "fake") return std::make_unique<FakeHypervisor>();
  return make_libvirt_hypervisor({.uri = config.libvirt_uri, .accel = config.accel});
}

/// What one VM may have at most, from nc.conf and the host.
Result<NodeLimits> node_limits(const Config& config) {
  hostinfo::HostSampler host(config.common.prefix, config.common.advertise);
  auto hardware = host.hardware();
  if (!hardware) return fail(hardware.error());
  NodeLimits limits;
  limits.max_memory_mib =
      config.max_memory_mib > 0 ? config.max_memory_mib : hardware->mem - config.reserve_mib;
  limits.max_cpus = config.max_cpus > 0 ? config.max_cpus : hardware->cpus;
  limits.guest_egress = config.guest_egress;
  limits.data_disk_bytes = std::uint64_t(config.data_disk_gib) << 30;
  limits.advertise = config.common.advertise;
  if (!limits.advertise.empty()) return limits;
  auto network = host.network();
  if (!network) return fail(network.error());
  limits.advertise = network->ip0;
  return limits;
}

Folders::Options folder_options(const Config& config) {
  Folders::Options options;
  options.layout = Layout(config.common.prefix);
  options.local = config.folders_local;
  options.server = config.folders;
  return options;
}

/// Whose members may connect to a socket of ours; none: only we.
std::optional<unsigned> qemu_group(const Config& config) {
  if (config.qemu_group.empty() || ::geteuid() != 0) return std::nullopt;
  group entry{};
  group* found = nullptr;
  std::vector<char> buffer(64 * 1024);
  if (::getgrnam_r(config.qemu_group.c_str(), &entry, buffer.data(), buffer.size(), &found) != 0 ||
      found == nullptr) {
    obs::warn("config.no_qemu_group", {{"qemu_group", config.qemu_group}});
    return std::nullopt;
  }
  return entry.gr_gid;
}

}  // namespace

// Destroyed in the reverse order: whoever calls goes before what is called.
struct Daemon::Impl {
  explicit Impl(Config c) : config(std::move(c)) {}
  const Config config;
  const SystemClock clock;
  std::string node_key;
  std::int64_t booted_at = 0;
  std::unique_ptr<image::VersionStore> store;
  std::unique_ptr<bus::Bus> bus;
  std::unique_ptr<inbox::Inbox> inbox;
  std::unique_ptr<Hypervisor> hypervisor;
  std::unique_ptr<LeaseKeeper> lease;
  std::unique_ptr<NodeCache> cache;
  std::unique_ptr<ImageTools> images;
  std::unique_ptr<CcDisks> disks;
  std::unique_ptr<Folders> folders;
  std::unique_ptr<Node> node;
  std::unique_ptr<MoveDesk> moves;
  std::unique_ptr<sys::ThreadPool> control;
  std::unique_ptr<transfer::ChunkRoutes> chunks;  // null: neighbours are not served
  std::unique_ptr<http::Server> server;
  std::unique_ptr<Heartbeat> heartbeat;
  std::unique_ptr<InventoryReporter> inventory;
  std::unique_ptr<OrphanSweeper> sweeper;
  std::unique_ptr<Upkeep> upkeep;

  Result<> open_state();
  Result<> open_images(const std::string& advertise);
  Result<> open_node();
  Result<> open_server();
  void subscribe();
  void open_upkeep();
};

Result<> Daemon::Impl::open_state() {
  const auto& common = config.common;
  auto key = transfer::load_key(config.node_key_file);
  if (!key) return fail(key.error());
  node_key = std::move(*key);
  if (auto ok = sys::make_directories(common.state_dir, 0700); !ok) return ok;
  auto boot = boot_id();
  auto booted = boot ? note_boot(common.state_dir, *boot, clock.wall_ms()) : Result<std::int64_t>(0);
  if (!booted) return fail(booted.error());
  booted_at = *booted;
  auto opened = image::VersionStore::open(common.prefix, {.is_cache = true, .payload = "machine"});
  if (!opened) return fail(opened.error());
  store = std::move(*opened);
  bus = bus::make_rabbit_bus(daemon::rabbit_options(config.common, "nc"));
  inbox::Options options;
  options.file = common.state_dir / "inbox.sqlite";
  options.exchange = config.exchange;
  options.routing_key = config.task_key();
  options.nid = common.host;
  options.booted_at = booted_at;
  auto inbox_opened = inbox::Inbox::open(std::move(options), *bus, clock);
  if (!inbox_opened) return fail(inbox_opened.error());
  inbox = std::move(*inbox_opened);
  return {};
}

Result<> Daemon::Impl::open_images(const std::string& advertise) {
  const auto& common = config.common;
  auto url = http::Url::parse(config.cc_url);
  if (!url) return fail(url.error());
  http::ClientOptions client;
  client.tls_ca_file = config.cc_ca_file;
  CacheOptions options;
  options.cc = *url;
  options.client = client;
  options.host = common.host;
  options.node_key = node_key;
  options.advertise_url = std::string(common.tls.certificate_file.empty() ? "http://" : "https://") +
                          advertise + ":" + std::to_string(common.port);
  options.connections = config.connections;
  options.max_fills = config.max_transfers;
  options.peers = config.peers;
  options.frame_cache_bytes = std::uint64_t(config.frame_cache_mib) << 20;
  cache = std::make_unique<NodeCache>(std::move(options), *store, clock);
  disks = make_cc_disks({.cc = *url, .client = client});
  images = make_image_tools({std::move(*url), std::move(client), config.connections}, *store, *cache);
  return {};
}

Result<> Daemon::Impl::open_node() {
  auto limits = node_limits(config);
  if (!limits) return fail(limits.error());
  if (auto ok = open_images(limits->advertise); !ok) return ok;
  OperationOptions options;
  options.layout = Layout(config.common.prefix);
  options.limits = std::move(*limits);
  options.stop_grace = std::chrono::seconds{config.stop_grace_s};
  options.min_free_disk_bytes = std::uint64_t(config.min_free_disk_mib) << 20;
  options.lazy.group = qemu_group(config);
  options.state_dir = config.common.state_dir;
  options.moves = {.tls = !config.common.tls.certificate_file.empty(),
                   .tls_ca_file = config.cc_ca_file,
                   .socket_group = options.lazy.group};
  options.disks = disks.get();
  options.may_start = [this](std::stop_token stop) { return lease->may_start(std::move(stop)); };
  options.was_fenced = [this](const InstanceId& insid) { return lease->has_ended(insid); };
  hypervisor = make_hypervisor(config);
  folders = std::make_unique<Folders>(folder_options(config), *hypervisor);
  options.folders = [this](VmSpec& spec, std::stop_token stop) {
    return folders->prepare(spec, std::move(stop));
  };
  LeaseKeeper::Options lease_options;
  lease_options.host = config.common.host;
  lease_options.state_dir = config.common.state_dir;
  // Before its inventory says that it knows, clc does not count it among the others again.
  lease_options.on_new_epoch = [this] {
    inventory->soon();
    upkeep->wake();
  };
  lease = std::make_unique<LeaseKeeper>(std::move(lease_options), *hypervisor, clock);
  node = std::make_unique<Node>(std::move(options), config.common.host, *inbox, *hypervisor, *images, clock);
  node->recover();
  return hypervisor->start([this](const VmEvent& event) { node->on_vm_event(event); });
}

Result<> Daemon::Impl::open_server() {
  auto options = daemon::server_options(config.common, "nc");
  ApiOptions api{Layout(config.common.prefix), config.common.host, node_key};
  auto router = make_router(std::move(api), *hypervisor, clock);
  if (auto* source = cache->source(); source != nullptr) {
    transfer::ChunkRouteOptions chunk_options{.key = node_key};
    chunk_options.clock = &clock;
    chunks = std::make_unique<transfer::ChunkRoutes>(std::move(chunk_options), *source, nullptr);
    chunks->add_routes(router);
  }
  moves = std::make_unique<MoveDesk>(MoveDeskOptions{config.common.host, node_key}, node->operations(),
                                     *hypervisor, clock);
  moves->add_routes(router);
  server = std::make_unique<http::Server>(std::move(options), std::move(router));
  return server->start();
}

void Daemon::Impl::subscribe() {
  // The bus's thread must not wait for a disk: commands are taken over one after the other on this one.
  control = std::make_unique<sys::ThreadPool>(sys::ThreadPool::Options{
      .name = "nc-control", .threads = 1, .queue_limit = 64, .on_exception = [](auto what) {
        obs::error("control.exception", {{"what", what}});
      }});
  bus->subscribe({config.queue(), kPrefetch, [this](bus::Delivery delivery) {
                    auto shared = std::make_shared<bus::Delivery>(std::move(delivery));
                    auto queued = control->submit(
                        [this, shared](std::stop_token) { node->handle(std::move(*shared)); });
                    if (!queued && shared->settle) shared->settle(bus::Verdict::requeue);
                  }});
  bus->subscribe({config.lease_queue(), 1, [this](const bus::Delivery& delivery) { lease->take(delivery); }});
}

void Daemon::Impl::open_upkeep() {
  InventoryReporter::Options options;
  options.layout = Layout(config.common.prefix);
  options.host = config.common.host;
  options.exchange = config.exchange;
  options.routing_key = config.node_key();
  inventory = std::make_unique<InventoryReporter>(std::move(options), *inbox, *hypervisor, *bus, clock,
                                                  [this] { return lease->epoch(); });
  sweeper = std::make_unique<OrphanSweeper>(Layout(config.common.prefix), *inbox, *hypervisor, *node, clock);
  upkeep = std::make_unique<Upkeep>(
      std::vector<std::function<void()>>{[this] { inventory->tick(); }, [this] { sweeper->tick(); },
                                         [this] { node->operations().tend_networks(); }});
}

Daemon::Daemon(Config config) : impl_(std::make_unique<Impl>(std::move(config))) {}
Daemon::~Daemon() {
  stop();
}

Result<> Daemon::start() {
  if (auto ok = impl_->open_state(); !ok) return ok;
  if (auto ok = impl_->open_node(); !ok) return ok;
  if (auto ok = impl_->open_server(); !ok) return ok;
  impl_->folders->start();
  impl_->subscribe();
  impl_->node->redo_unfinished();
  // A transfer that waits for another of the same version takes a worker, but no bandwidth.
  const int transfers = impl_->config.max_transfers;
  impl_->node->start({.copies = 2 * transfers, .background = transfers});
  impl_->inbox->start();
  Heartbeat::Parts parts{*impl_->bus,     *impl_->hypervisor, *impl_->images,  *impl_->node,
                         *impl_->folders, impl_->clock,       impl_->booted_at};
  impl_->heartbeat = std::make_unique<Heartbeat>(impl_->config, parts, impl_->server->port());
  impl_->open_upkeep();
  impl_->bus->start([this] {
    impl_->inbox->resend();
    impl_->inventory->soon();
    impl_->upkeep->wake();
  });
  impl_->heartbeat->start();
  impl_->lease->start();
  impl_->upkeep->start();
  obs::info("nc.started", {{"host", impl_->config.common.host},
                           {"port", impl_->server->port()},
                           {"hypervisor", impl_->hypervisor->kind()}});
  return {};
}

void Daemon::stop() {
  if (impl_->upkeep) impl_->upkeep->stop();
  if (impl_->heartbeat) impl_->heartbeat->stop();
  if (impl_->chunks) impl_->chunks->stop();
  if (impl_->server) impl_->server->stop();
  if (impl_->moves) impl_->moves->stop();
  if (impl_->control) impl_->control->stop();
  if (impl_->node) impl_->node->stop();
  if (impl_->cache) impl_->cache->stop();
  if (impl_->lease) impl_->lease->stop();
  if (impl_->folders) impl_->folders->stop();
  if (impl_->hypervisor) impl_->hypervisor->stop();
  if (impl_->inbox) impl_->inbox->stop();
  if (impl_->bus) impl_->bus->stop();
}

int Daemon::port() const {
  return impl_->server ? impl_->server->port() : 0;
}

}  // namespace educloud::nc
