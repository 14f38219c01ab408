#include "nc/cache/node_cache.hpp"

#include <condition_variable>
#include <mutex>
#include <thread>

#include "common/base/ids.hpp"
#include "common/obs/log.hpp"
#include "nc/cache/cache_source.hpp"
#include "nc/cache/fill_table.hpp"
#include "nc/cache/flattener.hpp"
#include "nc/cache/lazy_reader.hpp"

namespace educloud::nc {
namespace fs = std::filesystem;
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kReportEvery{250};
constexpr std::chrono::seconds kHousekeepingEvery{30};

Result<> check_request(const FillRequest& request) {
  if (auto id = ImageId::parse(request.imgid); !id) return fail(id.error());
  if (request.version < 1)
    return fail(ErrorCode::invalid_argument,
                "version " + std::to_string(request.version) + " is not positive");
  if (request.digest.is_hole()) return fail(ErrorCode::invalid_argument, "a version needs its digest");
  return {};
}

}  // namespace

struct NodeCache::Impl {
  Impl(CacheOptions cache_options, image::VersionStore& version_store, const Clock& clock)
      : options(std::move(cache_options)),
        local(version_store, clock),
        ring(options.frame_cache_bytes),
        table({options, local, ring}, [this] { wake(); }),
        source(table, local, ring) {
    clear_leftovers();
    housekeeper = std::jthread([this](const std::stop_token& stop) { keep_house(stop); });
  }

  /// True if it is here; an error if another one is.
  Result<bool> is_here(const FillRequest& request);
  void clear_leftovers();
  void wake() {
    const std::lock_guard lock(mutex);
    woken = true;
    changed.notify_all();
  }
  void keep_house(const std::stop_token& stop);
  void flatten_some(const std::stop_token& stop);

  const CacheOptions options;
  LocalVersions local;
  FrameRing ring;
  FillTable table;
  CacheSource source;
  std::mutex mutex;
  std::condition_variable_any changed;
  bool woken = false;
  std::set<VersionKey> not_flattened;  ///< failed; only the housekeeper looks at it
  std::jthread housekeeper;            ///< last: ends before what it uses
};

Result<bool> NodeCache::Impl::is_here(const FillRequest& request) {
  auto info = local.store().find(request.imgid, request.version);
  if (!info) {
    if (info.error().code == ErrorCode::not_found) return false;
    // A damaged version is made again.
    obs::error("cache.version_damaged", {{"image", request.imgid}, {"error", info.error().message}});
    return false;
  }
  if (info->digest == request.digest.hex()) {
    local.handed_out(request.imgid, request.version);
    return true;
  }
  return fail(ErrorCode::conflict, request.imgid + " version " + std::to_string(request.version) +
                                       " is here with digest " + info->digest + ", not " +
                                       request.digest.hex() + ": remove it from this node");
}

void NodeCache::Impl::clear_leftovers() {
  std::error_code error;
  for (fs::directory_iterator entry(local.store().prefix() / "tmp" / "staging", error), end;
       !error && entry != end; entry.increment(error)) {
    const auto& path = entry->path();
    const auto kind = path.extension();
    auto name = path.stem().string();
    std::replace(name.begin(), name.end(), '-', '/');
    const auto key = parse_version_key(name);
    const bool is_ours = kind == ".flat" || kind == ".part" || kind == ".journal" || kind == ".new";
    // What was not published goes on at the next fill; of what was, only the journal can be left.
    const bool is_done =
        kind == ".flat" || kind == ".new" || (key && local.store().find(key->first, key->second).has_value());
    std::error_code ignored;
    if (is_ours && is_done) fs::remove(path, ignored);
  }
}

void NodeCache::Impl::keep_house(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    {
      std::unique_lock lock(mutex);
      changed.wait_for(lock, stop, kHousekeepingEvery, [&] { return woken; });
      woken = false;
    }
    table.reap();
    source.trim();
    if (table.is_idle()) ring.trim_idle();
    if (!stop.stop_requested()) flatten_some(stop);
  }
}

void NodeCache::Impl::flatten_some(const std::stop_token& stop) {
  for (const auto& info : local.too_deep(static_cast<std::size_t>(std::max(1, options.max_layers)))) {
    const VersionKey key{info.image, info.version};
    if (stop.stop_requested()) return;
    if (not_flattened.contains(key)) continue;
    auto done = flatten(
        local, info, [this] { return table.is_idle(); }, stop);
    if (done || done.error().code == ErrorCode::conflict || done.error().code == ErrorCode::cancelled)
      continue;
    if (done.error().code != ErrorCode::exhausted) not_flattened.insert(key);
    obs::warn("cache.not_flattened",
              {{"image", info.image}, {"version", info.version}, {"error", done.error().message}});
  }
}

NodeCache::NodeCache(CacheOptions options, image::VersionStore& store, const Clock& clock)
    : impl_(std::make_unique<Impl>(std::move(options), store, clock)) {}

NodeCache::~NodeCache() {
  stop();
}

Result<> NodeCache::fill(const FillRequest& request, const OnFilled& on_filled, std::stop_token stop) {
  if (auto ok = check_request(request); !ok) return ok;
  auto here = impl_->is_here(request);
  if (!here) return fail(here.error());
  if (*here) return {};
  auto ticket = impl_->table.join(request);
  if (!ticket) return fail(ticket.error());
  std::pair<std::uint64_t, std::uint64_t> told{~0ULL, ~0ULL};
  std::shared_ptr<const FillCounters> counters;
  for (;;) {
    // Before the wait: an ended fill is soon cleared away.
    if (const auto job = (*ticket)->job()) counters = job->counters();
    const auto outcome = (*ticket)->wait(kReportEvery, stop);
    if (counters && on_filled) {
      const std::pair now{counters->done_bytes.load(), counters->total_bytes.load()};
      if (now != told) on_filled(now.first, now.second);
      told = now;
    }
    if (outcome) return *outcome;
    if (stop.stop_requested()) return fail(ErrorCode::cancelled, "the fill was stopped");
  }
}

Result<std::shared_ptr<NodeCache::Reader>> NodeCache::open_lazily(const FillRequest& request,
                                                                  std::stop_token stop) {
  if (auto ok = check_request(request); !ok) return fail(ok.error());
  for (;;) {
    auto here = impl_->is_here(request);
    if (!here) return fail(here.error());
    if (*here) {
      auto info = impl_->local.store().find(request.imgid, request.version);
      if (!info) return fail(info.error());
      auto disk = impl_->local.open_disk(request.imgid, request.version);
      if (!disk) return fail(disk.error());
      return std::make_shared<PublishedReader>(std::move(*disk), info->virtual_size_bytes);
    }
    auto joined = impl_->table.join(request);
    if (!joined) return fail(joined.error());
    std::shared_ptr<FillTable::Ticket> ticket = std::move(*joined);
    std::optional<Result<>> outcome;
    while (!outcome && !stop.stop_requested()) {
      auto job = ticket->job();
      if (job && job->state())
        return std::make_shared<LazyReader>(impl_->table, impl_->local, request, std::move(ticket), job);
      outcome = ticket->wait(milliseconds(10), stop);
    }
    if (!outcome) return fail(ErrorCode::cancelled, "stopped");
    if (!*outcome) return fail(outcome->error());
    // It ended well before anybody looked: it is here now.
  }
}

Result<std::vector<DiskLayer>> NodeCache::layers(const std::string& imgid, int version) {
  auto found = impl_->local.layers(imgid, version);
  if (found) impl_->local.handed_out(imgid, version);
  return found;
}

Result<chunk::DiskMap> NodeCache::map(const std::string& imgid, int version) {
  return impl_->local.map(imgid, version);
}

void NodeCache::set_in_use(std::set<std::pair<std::string, int>> versions) {
  impl_->local.set_in_use(std::move(versions));
  impl_->wake();
}

void NodeCache::make_room(std::uint64_t wanted) {
  impl_->local.make_room(wanted);
}

transfer::ChunkSource* NodeCache::source() {
  return impl_->options.peers ? &impl_->source : nullptr;
}

void NodeCache::stop() {
  impl_->table.stop();
  if (impl_->housekeeper.joinable()) {
    impl_->housekeeper.request_stop();
    impl_->housekeeper.join();
  }
}

}  // namespace educloud::nc
