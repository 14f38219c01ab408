#include "walrus/store/sweep.hpp"

#include <condition_variable>

#include "common/image/version_store.hpp"
#include "common/obs/log.hpp"
#include "common/obs/metrics.hpp"
#include "walrus/store/catalogue.hpp"

namespace educloud::walrus {
namespace {

constexpr std::chrono::seconds kFirstSweep{60};  // at the latest, after the start
constexpr std::chrono::seconds kSoon{1};         // so that one sweep follows many removals
constexpr std::chrono::seconds kStats{10};

Result<> mark_version(const VersionFolder& version, chunk::ChunkStore& chunks,
                      const std::function<void(std::span<const chunk::ChunkId>)>& live,
                      const std::stop_token& stop) {
  auto manifest = read_manifest(version);
  if (!manifest && manifest.error().code == ErrorCode::not_found) return {};
  if (!manifest) return fail(manifest.error());
  for (const auto& ref : manifest->groups) {
    if (stop.stop_requested()) return fail(ErrorCode::cancelled, "the sweep was stopped");
    auto group = read_group(chunks, manifest->disk_bytes, ref);
    if (!group) {
      std::error_code ignored;
      if (!std::filesystem::exists(version.folder, ignored)) return {};  // removed meanwhile
      return fail(group.error(), version.name());
    }
    live(std::span(&ref.id, 1));
    std::vector<chunk::ChunkId> ids;
    for (const auto& id : group->chunks) {
      if (!id.is_hole()) ids.push_back(id);
    }
    live(ids);
  }
  return {};
}

}  // namespace

std::shared_ptr<void> InProgress::add(Ids ids) {
  auto handle = std::make_shared<Ids>(std::move(ids));
  const std::lock_guard lock(mutex_);
  std::erase_if(work_, [](const auto& one) { return one.expired(); });
  work_.push_back(handle);
  return handle;
}

void InProgress::visit(const std::function<void(std::span<const chunk::ChunkId>)>& live) const {
  std::vector<std::shared_ptr<Ids>> all;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& one : work_) {
      if (auto held = one.lock()) all.push_back(std::move(held));
    }
  }
  for (const auto& ids : all) live((*ids)());
}

Result<chunk::SweepReport> sweep(const std::filesystem::path& prefix, chunk::ChunkStore& chunks,
                                 const InProgress* in_progress, std::chrono::seconds grace,
                                 std::stop_token stop) {
  const auto mark = [&](const std::function<void(std::span<const chunk::ChunkId>)>& live) -> Result<> {
    // Work under way first: what it publishes before we list the versions is then seen there.
    if (in_progress != nullptr) in_progress->visit(live);
    auto versions = version_folders(prefix);
    if (!versions) return fail(versions.error());
    for (const auto& version : *versions) {
      if (version.is_older_format) continue;
      if (auto ok = mark_version(version, chunks, live, stop); !ok) {
        if (ok.error().code == ErrorCode::cancelled) return ok;
        return fail(ok.error(), "nothing is swept, because what " + version.name() +
                                    " needs is not known (run educloud walrus fsck)");
      }
    }
    return {};
  };
  return chunks.sweep(mark, grace, stop);
}

Result<chunk::SweepReport> sweep_offline(const std::filesystem::path& prefix, std::chrono::seconds grace,
                                         std::stop_token stop) {
  auto running = [](Error error) {
    if (error.code == ErrorCode::conflict)
      error.message += " (walrus runs, and sweeps by itself each hour and after a prune)";
    return error;
  };
  // Its lock too: no version may come or go meanwhile.
  image::VersionStore::Options options;
  options.payload = "manifest";
  auto versions = image::VersionStore::open(prefix, options);
  if (!versions) return fail(running(versions.error()));
  auto chunks = chunk::ChunkStore::open(chunk_folder(prefix), {});
  if (!chunks) return fail(running(chunks.error()));
  return sweep(prefix, **chunks, nullptr, grace, std::move(stop));
}

struct Sweeper::Impl {
  Impl(std::filesystem::path p, chunk::ChunkStore& c, const InProgress& i, Options o)
      : prefix(std::move(p)), chunks(c), in_progress(i), options(o) {}
  void run(const std::stop_token& stop);
  void sweep_once(const std::stop_token& stop);
  void measure();

  const std::filesystem::path prefix;
  chunk::ChunkStore& chunks;
  const InProgress& in_progress;
  const Options options;
  std::mutex mutex;
  std::condition_variable_any wake;
  std::chrono::steady_clock::time_point next =
      std::chrono::steady_clock::now() + std::min(kFirstSweep, options.interval);
  std::jthread thread;
};

void Sweeper::Impl::measure() {
  auto stats = chunks.stats();
  if (!stats) return;
  obs::Metrics& metrics = obs::metrics();
  metrics.gauge("educloud_walrus_chunks", "Chunks in the store", static_cast<double>(stats->chunks));
  metrics.gauge("educloud_walrus_chunk_raw_bytes", "What the chunks hold unpacked",
                static_cast<double>(stats->raw_bytes));
  metrics.gauge("educloud_walrus_chunk_stored_bytes", "The chunks as they are stored",
                static_cast<double>(stats->stored_bytes));
  metrics.gauge("educloud_walrus_store_bytes", "What packs and index occupy on disk",
                static_cast<double>(stats->disk_bytes));
}

void Sweeper::Impl::sweep_once(const std::stop_token& stop) {
  const auto begun = std::chrono::steady_clock::now();
  auto report = sweep(prefix, chunks, &in_progress, options.grace, stop);
  if (!report) {
    if (report.error().code == ErrorCode::cancelled) return;
    obs::metrics().count("educloud_walrus_failed_sweeps_total", "Sweeps that were given up");
    obs::error("sweep.failed", {{"error", report.error().message}});
    return;
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begun;
  obs::metrics().observe("educloud_walrus_sweep_seconds", "Time of one sweep", took.count());
  obs::metrics().count("educloud_walrus_swept_chunks_total", "Chunks removed because no version needs them",
                       static_cast<double>(report->removed));
  obs::metrics().count("educloud_walrus_freed_bytes_total", "Bytes that sweeps gave back",
                       static_cast<double>(report->freed_bytes));
  obs::info("sweep.done", {{"live", report->live},
                           {"newly_dead", report->newly_dead},
                           {"removed", report->removed},
                           {"freed_bytes", report->freed_bytes}});
  if (report->newly_dead == 0) return;
  // What this one only noted goes once the grace is over, not an interval later.
  const std::lock_guard lock(mutex);
  next = std::min(next, std::chrono::steady_clock::now() + options.grace + kSoon);
}

void Sweeper::Impl::run(const std::stop_token& stop) {
  std::unique_lock lock(mutex);
  while (!stop.stop_requested()) {
    if (std::chrono::steady_clock::now() >= next) {
      next = std::chrono::steady_clock::now() + options.interval;
      lock.unlock();
      sweep_once(stop);
      lock.lock();
    }
    lock.unlock();
    measure();
    lock.lock();
    const auto until = std::min(next, std::chrono::steady_clock::now() + kStats);
    const auto before = next;
    wake.wait_until(lock, stop, until, [&] { return next < before; });
  }
}

Sweeper::Sweeper(std::filesystem::path prefix, chunk::ChunkStore& chunks, const InProgress& in_progress,
                 Options options)
    : impl_(std::make_unique<Impl>(std::move(prefix), chunks, in_progress, options)) {}

Sweeper::~Sweeper() {
  stop();
}

void Sweeper::start() {
  impl_->thread = std::jthread([impl = impl_.get()](std::stop_token stop) { impl->run(stop); });
}

void Sweeper::soon() {
  const std::lock_guard lock(impl_->mutex);
  impl_->next = std::min(impl_->next, std::chrono::steady_clock::now() + kSoon);
  impl_->wake.notify_all();
}

void Sweeper::stop() {
  if (!impl_->thread.joinable()) return;
  impl_->thread.request_stop();
  impl_->thread.join();
}

}  // namespace educloud::walrus
