#include "walrus/app/service.hpp"

#include <condition_variable>

#include "common/daemon/daemon.hpp"
#include "common/http/server.hpp"
#include "common/obs/log.hpp"
#include "common/obs/metrics.hpp"
#include "common/sys/file.hpp"
#include "common/sys/thread_pool.hpp"
#include "common/transfer/chunk_routes.hpp"
#include "walrus/api/routes.hpp"
#include "walrus/app/desk.hpp"
#include "walrus/store/catalogue.hpp"
#include "walrus/store/chunk_service.hpp"
#include "walrus/store/space.hpp"
#include "walrus/store/sweep.hpp"

namespace educloud::walrus {
namespace {

constexpr std::uint16_t kPrefetch = 16;
constexpr std::size_t kQueuedCommands = 256;
constexpr int kHttpThreads = 4;  // an fsync at the end of a PATCH holds one for a moment
constexpr std::chrono::seconds kGaugeInterval{10};

}  // namespace

struct Service::Impl {
  Impl(WalrusConfig c, std::string key, bus::Bus& b, const Clock& k)
      : config(std::move(c)), data_key(std::move(key)), bus(b), clock(k), started_ms(clock.boot_ms()) {}

  Result<> open_store();
  Result<> open_inbox();
  void open_importer();
  void open_uploads();
  void open_chunk_routes();
  void name_older_versions() const;
  Result<> listen();
  void subscribe();
  void measure();
  nlohmann::json health() const;

  const WalrusConfig config;
  const std::string data_key;
  bus::Bus& bus;
  const Clock& clock;
  const std::int64_t started_ms;
  // In the order of their making; destroyed from the end.
  std::unique_ptr<image::VersionStore> store;
  std::unique_ptr<chunk::ChunkStore> chunks;
  std::unique_ptr<Publisher> publisher;
  InProgress in_progress;
  std::unique_ptr<Sweeper> sweeper;
  std::unique_ptr<inbox::Inbox> inbox;
  std::unique_ptr<Importer> importer;
  std::unique_ptr<BlankDisks> blanks;
  std::unique_ptr<Desk> desk;
  std::unique_ptr<transfer::UploadServer> uploads;
  std::unique_ptr<StoreSource> source;
  std::unique_ptr<StoreSink> sink;
  std::unique_ptr<transfer::ChunkRoutes> chunk_routes;
  std::unique_ptr<sys::ThreadPool> control;
  std::unique_ptr<http::Server> server;
  std::jthread gauges;
};

Result<> Service::Impl::open_store() {
  image::VersionStore::Options versions;
  versions.payload = "manifest";
  auto opened = image::VersionStore::open(config.common.prefix, versions);
  if (!opened) return fail(opened.error());
  store = std::move(*opened);
  auto chunk_store = chunk::ChunkStore::open(chunk_folder(store->prefix()), {});
  if (!chunk_store) return fail(chunk_store.error(), "the chunks of " + store->prefix().string());
  chunks = std::move(*chunk_store);
  publisher =
      std::make_unique<Publisher>(*store, *chunks, static_cast<std::uint64_t>(config.max_virtual_bytes));
  Sweeper::Options sweeps;
  sweeps.interval = std::chrono::seconds(config.sweep_interval_s);
  sweeps.grace = std::chrono::seconds(config.sweep_grace_s);
  sweeper = std::make_unique<Sweeper>(store->prefix(), *chunks, in_progress, sweeps);
  name_older_versions();
  return make_space(store->prefix(), config.files_user);
}

/// From before images were chunked: nobody can fetch them, and they would be missed only by whoever tries.
void Service::Impl::name_older_versions() const {
  auto folders = version_folders(store->prefix());
  if (!folders) return;
  for (const auto& one : *folders) {
    if (!one.is_older_format) continue;
    obs::warn("image.older_format",
              {{"version", one.name()},
               {"file", (one.folder / "machine").string()},
               {"what_to_do", "import that file again as a new version, then prune this"}});
  }
}

Result<> Service::Impl::open_inbox() {
  if (auto ok = sys::make_directories(config.common.state_dir, 0700); !ok) return ok;
  inbox::Options options;
  options.file = config.common.state_dir / "inbox.sqlite";
  options.exchange = "clc_status";
  options.routing_key = "taskstatus.walrus";
  auto box = inbox::Inbox::open(std::move(options), bus, clock);
  if (!box) return fail(box.error());
  inbox = std::move(*box);
  return {};
}

void Service::Impl::open_importer() {
  ImporterOptions import;
  import.convert_user = choose_convert_user(config.convert_user);
  import.max_image_bytes = static_cast<std::uint64_t>(config.max_image_bytes);
  import.max_virtual_bytes = static_cast<std::uint64_t>(config.max_virtual_bytes);
  import.reserve_bytes = static_cast<std::uint64_t>(config.reserve_bytes);
  if (import.convert_user.empty()) {
    obs::warn("convert.not_isolated", {{"why", "not root, so qemu-img runs as our own user"}});
  }
  importer = std::make_unique<Importer>(*store, *chunks, *publisher, in_progress, std::move(import));
}

void Service::Impl::open_chunk_routes() {
  source = std::make_unique<StoreSource>(*store, *chunks);
  StoreSink::Options options;
  options.prefix = store->prefix();
  options.reserve_bytes = static_cast<std::uint64_t>(config.reserve_bytes);
  options.data_key = data_key;
  options.on_published = [](const transfer::Receipt& receipt) {
    obs::metrics().count("educloud_walrus_submits_total", "Versions that hosts published");
    obs::info("image.published", {{"imgid", receipt.imgid},
                                  {"version", receipt.version},
                                  {"cmdid", receipt.cmdid},
                                  {"digest", receipt.digest},
                                  {"bytes", receipt.size_bytes}});
  };
  sink = std::make_unique<StoreSink>(*chunks, *publisher, std::move(options));
  transfer::ChunkRouteOptions routes;
  routes.key = data_key;
  routes.clock = &clock;
  routes.max_readers = static_cast<std::size_t>(config.max_readers);
  chunk_routes = std::make_unique<transfer::ChunkRoutes>(std::move(routes), *source, sink.get());
}

void Service::Impl::open_uploads() {
  blanks = std::make_unique<BlankDisks>(*store, *importer, config.database_template);
  Desk::Parts parts{*store, *inbox, *importer, *publisher, [this] { sweeper->soon(); }, *blanks};
  desk = std::make_unique<Desk>(std::move(parts), data_key);
  transfer::UploadServerOptions options;
  options.folder = config.common.prefix / "tmp" / "uploads";
  options.data_key = data_key;
  options.max_bytes = static_cast<std::uint64_t>(config.max_image_bytes);
  options.reserve_bytes = static_cast<std::uint64_t>(config.reserve_bytes);
  options.max_open = static_cast<std::size_t>(config.max_uploads);
  options.workers = config.workers;
  options.expire_after = std::chrono::hours(config.upload_expiry_hours);
  Desk* desk_ptr = desk.get();
  options.admit = [desk_ptr](transfer::UploadInfo& info) { return desk_ptr->admit(info); };
  options.processor = [desk_ptr](const transfer::ProcessInput& input, std::stop_token stop) {
    return desk_ptr->process(input, std::move(stop));
  };
  options.on_change = [desk_ptr](const transfer::UploadStatus& status) { desk_ptr->on_upload(status); };
  uploads = std::make_unique<transfer::UploadServer>(std::move(options));
  desk->attach(*uploads);
}

nlohmann::json Service::Impl::health() const {
  nlohmann::json json = {{"status", "ok"},
                         {"service", "walrus"},
                         {"host", config.common.host},
                         {"version", daemon::version()},
                         {"uptime_s", (clock.boot_ms() - started_ms) / 1000},
                         {"broker", bus.is_ready() ? "connected" : "not connected"},
                         {"uploads", uploads->list().size()}};
  if (auto space = sys::disk_space(config.common.prefix)) {
    json["free_bytes"] = space->free_bytes;
    json["total_bytes"] = space->total_bytes;
  }
  return json;
}

Result<> Service::Impl::listen() {
  http::Router router;
  uploads->add_routes(router);
  chunk_routes->add_routes(router);
  add_routes(router, [this] { return health(); });
  auto options = daemon::server_options(config.common, "walrus");
  options.threads = kHttpThreads;
  server = std::make_unique<http::Server>(std::move(options), std::move(router));
  return server->start();
}

void Service::Impl::subscribe() {
  sys::ThreadPool::Options options;
  options.name = "commands";
  options.threads = 1;  // one after the other, in the order of the queue
  options.queue_limit = kQueuedCommands;
  options.on_exception = [](std::string_view what) { obs::error("command.exception", {{"what", what}}); };
  control = std::make_unique<sys::ThreadPool>(std::move(options));
  Desk* desk_ptr = desk.get();
  sys::ThreadPool* pool = control.get();
  bus.subscribe({"walrus_cmd_queue", kPrefetch, [desk_ptr, pool](bus::Delivery delivery) {
                   auto ok =
                       pool->submit([desk_ptr, delivery](std::stop_token) { desk_ptr->handle(delivery); });
                   if (!ok) delivery.settle(bus::Verdict::requeue);
                 }});
  inbox::Inbox* box = inbox.get();
  bus.start([box] { box->resend(); });
}

void Service::Impl::measure() {
  obs::Metrics& metrics = obs::metrics();
  if (auto versions = store->list()) {
    metrics.gauge("educloud_walrus_versions", "Published versions of all images",
                  static_cast<double>(versions->size()));
  }
  if (auto space = sys::disk_space(config.common.prefix)) {
    metrics.gauge("educloud_walrus_free_bytes", "Free on the store's disk",
                  static_cast<double>(space->free_bytes));
  }
}

Service::Service(WalrusConfig config, std::string data_key, bus::Bus& bus, const Clock& clock)
    : impl_(std::make_unique<Impl>(std::move(config), std::move(data_key), bus, clock)) {}

Service::~Service() {
  stop();
}

Result<> Service::start() {
  if (auto ok = impl_->open_store(); !ok) return ok;
  if (auto ok = impl_->open_inbox(); !ok) return ok;
  impl_->open_importer();
  impl_->open_uploads();
  impl_->open_chunk_routes();
  impl_->desk->restore_expectations();
  if (auto ok = impl_->uploads->start(); !ok) return ok;
  impl_->desk->resume();
  if (auto ok = impl_->listen(); !ok) return ok;
  impl_->subscribe();
  impl_->inbox->start();
  impl_->sweeper->start();
  impl_->gauges = std::jthread([impl = impl_.get()](std::stop_token stop) {
    std::mutex mutex;
    std::condition_variable_any wake;
    std::unique_lock lock(mutex);
    do {
      impl->measure();
      wake.wait_for(lock, stop, kGaugeInterval, [] { return false; });
    } while (!stop.stop_requested());
  });
  obs::info("walrus.started", {{"prefix", impl_->config.common.prefix.string()}, {"port", port()}});
  return {};
}

void Service::stop() {
  Impl& impl = *impl_;
  if (impl.gauges.joinable()) {
    impl.gauges.request_stop();
    impl.gauges.join();
  }
  if (impl.sweeper) impl.sweeper->stop();
  if (impl.chunk_routes) impl.chunk_routes->stop();
  if (impl.server) impl.server->stop();
  if (impl.uploads) impl.uploads->stop();
  if (impl.control) {
    impl.bus.stop();
    impl.control->stop();
  }
  if (impl.inbox) impl.inbox->stop();
}

int Service::port() const {
  return impl_->server ? impl_->server->port() : 0;
}

}  // namespace educloud::walrus
