#include "sim/world/clc_host.hpp"

#include "clc/app/cloud_impl.hpp"
#include "clc/app/event_hub.hpp"
#include "clc/app/heartbeats.hpp"
#include "clc/app/leases.hpp"
#include "clc/app/outbox_relay.hpp"
#include "clc/app/setup.hpp"
#include "clc/app/status_consumer.hpp"
#include "clc/app/ticker.hpp"
#include "clc/store/accounts.hpp"
#include "common/sys/file.hpp"

namespace educloud::sim {
namespace {

constexpr std::int64_t kTickMs = 1000;

clc::store::StoreOptions on_one_thread() {
  clc::store::StoreOptions out;
  out.writer_thread = false;
  return out;
}

std::filesystem::path database(const std::filesystem::path& folder) {
  return folder / "clc.sqlite";
}

/// A migrated, empty database: made once per process, copied for each world.
const Result<std::string>& empty_database(const std::filesystem::path& folder) {
  static const Result<std::string> content = [&]() -> Result<std::string> {
    const auto file = folder / "template.sqlite";
    {
      auto store = clc::store::Store::open(file, on_one_thread());
      if (!store) return fail(store.error());
      const auto added = (*store)->write([](clc::store::Sql& sql) -> Result<> {
        clc::store::add_account(sql, {kAdmin.account, true, "none", HostClock::kEpochMs});
        return {};
      });
      if (!added) return fail(added.error());
    }
    return sys::read_file(file, 16u << 20);
  }();
  return content;
}

}  // namespace

struct ClcHost::Parts {
  Parts(ClcHost& host, std::unique_ptr<clc::store::Store> opened)
      : store(std::move(opened)),
        heartbeats(host.clock_),
        cloud(*store, heartbeats, events, host.clock_, host.options_.cloud),
        bus(host.broker_.connect("clc", host)),
        relay(*store, *bus, host.clock_),
        statuses(*store, cloud.impl().engine, host.clock_),
        leases(*store, cloud.impl().engine, heartbeats, *bus, host.clock_),
        ticker(*store, cloud.impl().engine, heartbeats, host.clock_) {
    ticker.also([this] { return leases.tick(); });
  }

  // In the order of App::Impl.
  std::unique_ptr<clc::store::Store> store;
  clc::Heartbeats heartbeats;
  clc::EventHub events;
  clc::Cloud cloud;
  std::unique_ptr<bus::Bus> bus;
  clc::OutboxRelay relay;
  clc::StatusConsumer statuses;
  clc::Leases leases;
  clc::Ticker ticker;
};

ClcHost::ClcHost(Surroundings surroundings, Broker& broker, std::uint64_t seed, Options options)
    : Host(std::move(surroundings), "clc", seed), broker_(broker), options_(std::move(options)) {}
ClcHost::~ClcHost() = default;

clc::Cloud& ClcHost::cloud() {
  return parts_->cloud;
}
clc::store::Store& ClcHost::store() {
  return *parts_->store;
}

// As App::create and App::start.
Result<> ClcHost::boot() {
  auto opened = clc::store::Store::open(database(options_.folder), on_one_thread());
  if (!opened) return fail(opened.error());
  parts_ = std::make_unique<Parts>(*this, std::move(*opened));
  auto& parts = *parts_;
  const auto pump_soon = [this, &parts] {
    world_.timeline.after(life(), 1, [this, &parts] { run([&parts] { parts.relay.pump(); }); });
  };
  parts.cloud.on_outbox([this, &parts, pump_soon] {
    crash_point();
    parts.relay.wake();
    pump_soon();
  });
  parts.cloud.broker_state([&parts] { return parts.bus->is_ready(); });
  parts.heartbeats.subscribe(*parts.bus);
  parts.statuses.subscribe(*parts.bus);
  if (auto ok = parts.ticker.prepare(); !ok) return ok;
  parts.bus->start([&parts, pump_soon] {
    parts.relay.reconnected();
    pump_soon();
  });
  every(kTickMs, [this, &parts] {
    if (auto ok = parts.ticker.tick(); !ok) world_.defect("clc's ticker: " + ok.error().message);
    parts.relay.pump();
  });
  return {};
}

void ClcHost::wreck() {
  parts_.reset();
}

Result<> make_clc_database(const std::filesystem::path& folder, const std::vector<std::string>& clusters,
                           const std::vector<std::pair<std::string, std::string>>& nodes) {
  const auto& content = empty_database(folder);
  if (!content) return fail(content.error());
  if (auto ok = sys::write_file_atomically(database(folder), *content, 0600); !ok) return ok;
  auto store = clc::store::Store::open(database(folder), on_one_thread());
  if (!store) return fail(store.error());
  for (const auto& cluster : clusters) {
    if (auto ok = clc::register_cluster(**store, cluster); !ok) return ok;
  }
  for (const auto& [node, cluster] : nodes) {
    if (auto ok = clc::register_node(**store, node, cluster); !ok) return ok;
  }
  return {};
}

}  // namespace educloud::sim
