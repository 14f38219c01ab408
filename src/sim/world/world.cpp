#include "sim/world/world.hpp"

#include "clc/store/catalogue.hpp"
#include "sim/world/chaos.hpp"
#include "sim/world/checks.hpp"

namespace educloud::sim {
namespace {

constexpr std::int64_t kSecond = 1000;
constexpr std::int64_t kWarmUpMs = 12 * kSecond;
/// The longest any of it may take once all works again: past every resend and its back-off.
constexpr std::int64_t kSettleMs = 30 * 60 * kSecond;
constexpr std::int64_t kInsistMs = 5 * kSecond;
constexpr std::int64_t kLookMs = 2 * kSecond;
constexpr std::int64_t kHeartbeatTtlMs = 30 * kSecond;
constexpr std::int64_t kLeaseTtlMs = 10 * kSecond;

const std::string kDataKey(64, 'a');

std::string pad(std::int64_t ms) {
  char text[32];
  std::snprintf(text, sizeof text, "%5lld.%03lld ", static_cast<long long>(ms / 1000),
                static_cast<long long>(ms % 1000));
  return text;
}

/// As `educloud init` lays them out.
void make_queues(Broker& broker, const std::vector<std::string>& clusters,
                 const std::vector<std::pair<std::string, std::string>>& nodes) {
  constexpr QueueRules kHeartbeats{kHeartbeatTtlMs, 2000, false};
  for (const auto& cluster : clusters) broker.bind("cc_cmd", cluster, "cc_cmd_queue." + cluster);
  for (const auto& [node, cluster] : nodes) {
    broker.bind("nc_cmd", node, "nc_cmd_queue." + node);
    broker.bind("nc_cmd", "lease." + node, "nc_lease_queue." + node, {kLeaseTtlMs, 1, false});
  }
  broker.bind("walrus_cmd", "walrus", "walrus_cmd_queue");
  for (const std::string level : {"cc", "clc"}) {
    broker.bind(level + "_status", "taskstatus.#", level + "_status_queue");
    broker.bind(level + "_status", "nodestatus.#", level + "_heartbeat_queue", kHeartbeats);
    broker.bind(level + "_status", "ccstatus.#", level + "_heartbeat_queue", kHeartbeats);
  }
}

}  // namespace

World::World(std::uint64_t seed, const RunOptions& options)
    : ids(seed, id_clock),
      rng(seed),
      surroundings{timeline,
                   [this](const std::string& what) {
                     surroundings.tell("DEFECT: " + what);
                     if (defect.empty()) defect = what;
                   },
                   [this, on_line = options.on_line](const std::string& line) {
                     if (on_line) on_line(pad(timeline.now_ms()) + line);
                   }},
      broker(timeline, rng.next()),
      walrus(surroundings, broker, rng.next(), {options.folder, kDataKey}) {
  lay_out(options);
}

void World::lay_out(const RunOptions& options) {
  const std::string cluster = "cc1";
  std::vector<std::pair<std::string, std::string>> nodes;
  const auto count = rng.between(2, 3);
  for (std::int64_t i = 1; i <= count; ++i) nodes.emplace_back("nc" + std::to_string(i), cluster);
  make_queues(broker, {cluster}, nodes);
  tight = rng.chance(0.3);
  Users::Options wants;
  wants.most_desks = static_cast<std::size_t>(rng.between(2, 5));
  wants.most_edits = static_cast<std::size_t>(rng.between(0, 2));
  wants.may_be_refused = tight;
  NcHost::Options node;
  node.folder = options.folder;
  node.cluster = cluster;
  // Room for everything on each node, or for two VMs.
  node.memory_mib = tight ? 1024 + 2 * wants.memory_mib + 512 : 16'384;
  if (auto ok = make_clc_database(options.folder, {cluster}, nodes); !ok)
    surroundings.defect("no database: " + ok.error().message);
  ClcHost::Options clc_options;
  clc_options.folder = options.folder;
  clc_options.cloud.data_key = kDataKey;
  clc_options.cloud.placement.reserve_mib = 1024;
  clc = std::make_unique<ClcHost>(surroundings, broker, rng.next(), std::move(clc_options));
  ccs.push_back(std::make_unique<CcHost>(surroundings, broker, cluster, rng.next()));
  for (const auto& [name, of] : nodes) {
    ncs.push_back(std::make_unique<NcHost>(surroundings, broker, walrus, name, rng.next(), node));
    wants.nodes.push_back(name);
  }
  for (int i = 0; i < 2; ++i) images.push_back(new_image_id().str());
  wants.images = images;
  users = std::make_unique<Users>(surroundings, *clc, rng.next(), std::move(wants));
}

std::vector<Host*> World::hosts() {
  std::vector<Host*> all{clc.get(), &walrus};
  for (auto& cc : ccs) all.push_back(cc.get());
  for (auto& nc : ncs) all.push_back(nc.get());
  return all;
}

void World::run_until(std::int64_t end_ms, const std::function<bool()>& done) {
  std::int64_t look_at = timeline.now_ms();
  while (defect.empty() && timeline.now_ms() < end_ms) {
    if (timeline.now_ms() >= look_at) {
      look_at = timeline.now_ms() + kLookMs;
      if (done && done()) return;
    }
    if (!timeline.step()) return;
  }
}

namespace {

/// What an import would have made: the catalogue and walrus know version 1 of each image.
void stock(World& world) {
  for (const auto& imgid : world.images) {
    const auto receipt = world.walrus.seed_version(imgid);
    auto stored = world.clc->store().write([&](clc::store::Sql& sql) -> Result<> {
      clc::Image image;
      image.imgid = imgid;
      image.name = "image " + imgid;
      image.owner = kAdmin.account;
      image.ostype = "linux";
      image.current_version = 1;
      image.next_version = 2;
      clc::store::add_image(sql, image);
      clc::Version version;
      version.imgid = imgid;
      version.version = 1;
      version.digest = receipt.digest;
      version.size_bytes = receipt.size_bytes;
      version.virtual_size_bytes = receipt.virtual_size_bytes;
      clc::store::add_version(sql, version);
      return {};
    });
    if (!stored) world.surroundings.defect("no image: " + stored.error().message);
  }
}

void live(World& world, bool faults) {
  auto& timeline = world.timeline;
  const Life life = new_life();
  Checks checks(world);
  for (auto* host : world.hosts()) host->start();
  if (world.clc->is_up()) stock(world);
  for (auto& nc : world.ncs) nc->on_start([&checks] { checks.look_at_nodes(); });
  timeline.every(life, kSecond, kSecond, [&] { checks.now(); });
  world.run_until(kWarmUpMs);

  Chaos chaos(world, world.rng.next());
  Life acting = new_life();
  timeline.every(acting, 1, world.rng.between(500, 6'000), [&] { world.users->act(); });
  if (faults) chaos.begin();
  world.run_until(timeline.now_ms() + world.rng.between(20, 150) * kSecond);
  acting.reset();
  chaos.end();
  world.faults = chaos.counts();
  world.run_until(timeline.now_ms() + kSettleMs, [&] {
    const auto all = world.hosts();
    return std::none_of(all.begin(), all.end(), [](const Host* host) { return host->is_paused(); });
  });
  checks.healed();

  world.users->settle();
  timeline.every(life, 1, kInsistMs, [&] { world.users->insist(); });
  std::string wrong = "nothing was looked at";
  const auto settle = [&](const char* what, const std::function<std::string()>& look) {
    world.run_until(timeline.now_ms() + kSettleMs, [&] { return (wrong = look()).empty(); });
    if (world.defect.empty() && !wrong.empty())
      world.surroundings.defect(std::string(what) + " was not reached in 30 min: " + wrong);
  };
  settle("what users asked for", [&] { return checks.difference(); });
  world.users->leave();
  settle("an empty cloud", [&] { return checks.leftovers(); });
  checks.at_the_end();
}

}  // namespace

Outcome run_world(std::uint64_t seed, const RunOptions& options) {
  std::error_code ignored;
  std::filesystem::remove_all(options.folder, ignored);
  std::filesystem::create_directories(options.folder, ignored);
  Outcome outcome;
  {
    World world(seed, options);
    live(world, options.faults);
    outcome = {world.defect, world.timeline.digest(), world.timeline.events(), world.timeline.now_ms(),
               world.faults};
  }
  std::filesystem::remove_all(options.folder, ignored);
  return outcome;
}

}  // namespace educloud::sim
