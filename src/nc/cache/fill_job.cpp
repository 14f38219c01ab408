#include "nc/cache/fill_job.hpp"

#include <unistd.h>

#include <algorithm>

#include "common/base/bytes.hpp"
#include "common/obs/log.hpp"
#include "common/obs/metrics.hpp"
#include "common/sys/pause.hpp"
#include "common/transfer/chunk_client.hpp"
#include "nc/cache/fill_workers.hpp"

namespace educloud::nc {
namespace {

using std::chrono::milliseconds;
using Now = WorkQueue::Clock;

/// How much may be lost by a kill: fetched again at most.
constexpr std::uint64_t kCommitBytes = 64ull << 20;
constexpr milliseconds kCommitEvery{2000};
constexpr milliseconds kTick{50};
/// Left free beside what a fill writes: tables, journal, the node's own records.
constexpr std::uint64_t kMargin = 16ull << 20;
constexpr std::size_t kMaxBases = 3;
/// How long the first answer about neighbours may hold up a fill.
constexpr milliseconds kFirstPoll{1000};
constexpr milliseconds kLastPoll{1000};

std::filesystem::path staging_path(LocalVersions& local, const FillRequest& request, const char* suffix) {
  // The ids were checked: the name is one that staging() takes.
  return *local.store().staging(request.imgid + "-" + std::to_string(request.version) + suffix);
}

bool is_base_of(const std::string& text, const BaseVersion& base) {
  return text == base.key() + " " + base.digest + " " + base.format;
}

/// Calls `attempt` until it succeeds, or nothing came for `patience`, or it makes no sense to repeat it.
template <class Attempt>
auto with_patience(std::chrono::seconds patience, std::stop_token stop, Attempt attempt)
    -> decltype(attempt()) {
  const auto begin = Now::now();
  auto pause = milliseconds(200);
  for (;;) {
    auto done = attempt();
    if (done || !is_retryable(done.error().code) || stop.stop_requested()) return done;
    if (Now::now() - begin >= patience) return done;
    (void)sys::pause(pause, stop);
    pause = std::min(pause * 2, milliseconds(5000));
  }
}

}  // namespace

FillJob::FillJob(const FillContext& context, FillRequest request)
    : context_(context),
      request_(std::move(request)),
      part_path_(staging_path(context.local, request_, ".part")),
      journal_path_(staging_path(context.local, request_, ".journal")) {}

FillJob::~FillJob() {
  std::unique_lock lock(mutex_);
  // The cc is being told that the version is complete here.
  if (complete_ && poller_.joinable()) polled_.wait_for(lock, kLastPoll, [&] { return polling_ended_; });
}

std::shared_ptr<FillState> FillJob::state() const {
  const std::lock_guard lock(mutex_);
  return state_;
}

std::string FillJob::manifest() const {
  const std::lock_guard lock(mutex_);
  return manifest_;
}

Result<> FillJob::run(std::stop_token stop) {
  if (context_.options.peers) poller_ = std::jthread([this](const std::stop_token& end) { poll_peers(end); });
  auto done = prepare(stop);
  if (done) done = transfer(stop);
  if (done) done = publish(*state_);
  if (auto made = state()) made->marks->close();
  if (done) {
    const std::lock_guard lock(mutex_);
    complete_ = true;
    polled_.notify_all();  // the cc is told at once
  } else {
    poller_.request_stop();
    // A full disk is not made emptier by keeping what does not fit.
    if (done.error().code == ErrorCode::exhausted) discard();
  }
  base_lease_.reset();
  report(done);
  return done;
}

Result<chunk::Manifest> FillJob::fetch_manifest(transfer::ChunkClient& client, std::stop_token stop) {
  return with_patience(context_.options.stall_timeout, stop,
                       [&] { return client.manifest(request_.digest, stop); });
}

Result<> FillJob::prepare(std::stop_token stop) {
  transfer::ChunkClient client({context_.options.cc, request_.imgid, request_.version, request_.grant,
                                request_.priority, context_.options.client});
  auto root = fetch_manifest(client, stop);
  if (!root) return fail(root.error());
  auto similar = context_.local.similar(request_.imgid, *root, kMaxBases);

  // A fill that was begun goes on with the base it began with.
  const auto begun = FillJournal::read_header(journal_path_);
  if (begun) {
    const auto known = std::find_if(similar.begin(), similar.end(),
                                    [&](const auto& one) { return is_base_of(begun->base, one.base); });
    if (known != similar.end()) std::rotate(similar.begin(), known, std::next(known));
  }
  std::vector<const chunk::DiskMap*> have;
  for (const auto& one : similar) have.push_back(&one.map);
  auto wanted = with_patience(context_.options.stall_timeout, stop,
                              [&] { return transfer::fetch_map(client, *root, have, stop); });
  if (!wanted) return fail(wanted.error());
  if (wanted->data_bytes() != root->data_bytes) {
    return fail(ErrorCode::corrupt,
                "the manifest of " + request_.imgid + " says " + std::to_string(root->data_bytes) +
                    " bytes of data, its groups have " + std::to_string(wanted->data_bytes()));
  }

  FillTarget::Base base_file;
  std::string base_name;
  auto kind = TargetKind::sparse;
  auto base_disk = similar.empty() ? std::nullopt : hold_base(similar.front().base);
  if (base_disk) {
    base_file = {context_.local.store().machine_path(base_.image, base_.version), base_.format};
    kind = choose_kind(*wanted, base_, similar.front().map,
                       FillTarget::can_clone(part_path_.parent_path(), base_file.file));
    base_name = base_.key() + " " + base_.digest + " " + base_.format;
  }
  auto plan = make_plan(*wanted, base_disk ? &similar.front().map : nullptr, kind);
  auto state = std::make_shared<FillState>(std::move(*wanted), std::move(plan), context_.options.host);
  state->base = std::move(base_disk);
  if (auto done = open_target(state, base_file, base_name); !done) return done;
  const std::lock_guard lock(mutex_);
  manifest_ = root->encode();
  state_ = std::move(state);
  return {};
}

std::optional<image::LayeredDisk> FillJob::hold_base(const BaseVersion& chosen) {
  base_lease_ =
      std::make_unique<LocalVersions::Lease>(context_.local, VersionKey{chosen.image, chosen.version});
  // Only now it stays as it is: it may have been flattened or evicted a moment ago.
  auto chain = context_.local.chain(chosen.image, chosen.version);
  auto disk = context_.local.open_disk(chosen.image, chosen.version);
  if (!chain || !disk || chain->front().digest != chosen.digest) {
    base_lease_.reset();
    return std::nullopt;
  }
  base_ = chosen;
  base_.format = chain->front().format;
  base_.layers = chain->size();
  return std::move(*disk);
}

Result<> FillJob::open_target(std::shared_ptr<FillState> state, const FillTarget::Base& base,
                              std::string base_name) {
  const FillJournal::Header header{request_.digest, state->plan.fingerprint(), state->plan.disk_bytes,
                                   std::move(base_name)};
  auto journal = FillJournal::open(journal_path_, header);
  if (journal) {
    auto target = FillTarget::reopen(part_path_, state->plan, base);
    if (target) {
      state->target = std::move(*target);
      journal_ = std::move(*journal);
      obs::info("cache.fill_goes_on", {{"image", request_.imgid}, {"version", request_.version}});
    }
  }
  if (!state->target) {
    discard();
    if (auto room = reserve_room(*state, ChunkBits(state->in_data.size(), 0)); !room) return room;
    auto target = FillTarget::create(part_path_, state->plan, base);
    if (!target) return fail(target.error());
    auto made = FillJournal::create(journal_path_, header);
    if (!made) return fail(made.error());
    state->target = std::move(*target);
    journal_ = std::move(*made);
  } else if (auto room = reserve_room(*state, journal_->marked()); !room) {
    return room;
  }
  // What a damaged journal might say beyond the plan must not count.
  auto marked = journal_->marked();
  for (std::size_t i = 0; i < marked.size(); ++i) marked[i] &= state->in_data[i];
  state->marks = std::make_unique<ChunkMarks>(marked);
  queue_work(*state);
  return {};
}

Result<> FillJob::reserve_room(const FillState& state, const ChunkBits& there) {
  std::uint64_t wanted = kMargin;
  for (const auto at : state.plan.data) wanted += has_bit(there, at) ? 0 : chunk::kChunkBytes;
  context_.local.make_room(wanted);
  auto space = sys::disk_space(part_path_.parent_path());
  if (!space || space->free_bytes >= wanted) return {};
  return fail(ErrorCode::exhausted, request_.imgid + " version " + std::to_string(request_.version) +
                                        " needs " + to_string(Bytes{wanted}) + " on this node's disk, " +
                                        to_string(Bytes{space->free_bytes}) +
                                        " are free and no cached version can be removed");
}

void FillJob::queue_work(FillState& state) {
  std::vector<std::uint64_t> todo;
  std::uint64_t done = 0;
  for (const auto at : state.plan.fetch) {
    if (state.marks->test(at)) {
      done += chunk::chunk_length(state.plan.disk_bytes, at);
    } else {
      todo.push_back(at);
    }
  }
  // Its twin was marked just before the process died: it is fetched for itself.
  for (const auto& repeat : state.plan.repeats) {
    if (!state.marks->test(repeat.chunk) && state.marks->test(repeat.of)) todo.push_back(repeat.chunk);
  }
  counters_.total_bytes = state.plan.fetch_bytes;
  counters_.done_bytes = done;
  state.queue.set_peers(peers_.live(), Now::now());
  state.queue.need(todo, Now::now());
}

Result<> FillJob::transfer(std::stop_token stop) {
  auto& state = *state_;
  if (context_.options.peers && state.queue.left() > 0) {
    std::unique_lock lock(mutex_);
    polled_.wait_for(lock, stop, kFirstPoll, [&] { return first_poll_done_; });
  }
  auto nodes = peers_.live();
  state.queue.set_peers(nodes, Now::now());
  FillWorkers workers(context_, request_, state, counters_, peers_);
  {
    const std::lock_guard lock(mutex_);
    workers_ = &workers;
  }
  workers.start();
  auto committed_at = Now::now();
  Result<> synced;
  while (synced && !stop.stop_requested() && !workers.wait(kTick, stop)) {
    if (auto now_live = peers_.live(); now_live != nodes) {
      nodes = std::move(now_live);
      state.queue.set_peers(nodes, Now::now());
      workers.peers_changed();
    }
    if (counters_.unsynced_bytes < kCommitBytes && Now::now() - committed_at < kCommitEvery) continue;
    synced = commit(state);
    committed_at = Now::now();
  }
  {
    const std::lock_guard lock(mutex_);
    workers_ = nullptr;
  }
  workers.stop();
  if (!synced) return synced;
  if (auto error = workers.error()) {
    // What came until then is kept for the next time.
    if (error->code != ErrorCode::exhausted) (void)commit(state);
    return fail(*error);
  }
  if (auto done = commit(state); !done) return done;
  if (stop.stop_requested() && state.marks->snapshot() != state.in_data)
    return fail(ErrorCode::cancelled, "the fill was stopped");
  return {};
}

Result<> FillJob::commit(FillState& state) {
  if (counters_.unsynced_bytes == 0) return {};
  counters_.unsynced_bytes = 0;
  const auto bits = state.marks->snapshot();
  if (auto done = state.target->sync(); !done) return done;
  return journal_->mark(bits);
}

Result<> FillJob::publish(FillState& state) {
  if (state.marks->snapshot() != state.in_data)
    return fail(ErrorCode::internal, "a fill ended with chunks missing: " + part_path_.string());
  image::VersionInfo info;
  info.image = request_.imgid;
  info.version = request_.version;
  info.digest = request_.digest.hex();
  info.size_bytes = state.wanted.data_bytes();
  info.virtual_size_bytes = state.plan.disk_bytes;
  info.format = state.plan.kind == TargetKind::delta ? "qcow2" : "raw";
  if (state.plan.kind == TargetKind::delta) info.stands_on = base_.key();
  auto done = context_.local.store().publish(part_path_, info,
                                             {{LocalVersions::kManifestFile, state.wanted.serialize()}});
  if (!done) return done;
  context_.local.handed_out(info.image, info.version);
  ::unlink(journal_path_.c_str());
  return {};
}

void FillJob::discard() {
  journal_.reset();
  ::unlink(journal_path_.c_str());
  ::unlink(part_path_.c_str());
}

void FillJob::demand(std::uint64_t chunk, bool again) {
  const auto state = this->state();
  if (!state) return;
  // Of the same content only one is fetched: that one is waited for.
  const auto first = state->find(state->wanted.at(chunk));
  state->queue.urge(chunk, again);
  if (first && *first != chunk) state->queue.urge(*first, again);
  const std::lock_guard lock(mutex_);
  if (workers_ != nullptr) workers_->wake();
}

void FillJob::poll_peers(std::stop_token stop) {
  auto options = context_.options.client;
  options.io_timeout = std::min(options.io_timeout, std::chrono::seconds{5});
  transfer::ChunkClient client(
      {context_.options.cc, request_.imgid, request_.version, request_.grant, request_.priority, options});
  constexpr std::array<int, 5> kFirstMs{0, 100, 200, 400, 800};
  for (std::size_t i = 1; !stop.stop_requested(); ++i) {
    const bool complete = complete_;
    auto answer = client.get_json(complete ? "peers?complete=1" : "peers?complete=0", stop);
    if (answer) {
      auto parsed = parse_peers(*answer, context_.options.host);
      if (parsed) peers_.update(std::move(*parsed));
    }
    std::unique_lock lock(mutex_);
    first_poll_done_ = true;
    polled_.notify_all();
    // A cc that has no such route has no neighbours to tell of.
    if (complete || (!answer && answer.error().code == ErrorCode::not_found)) {
      polling_ended_ = true;
      return;
    }
    const auto until = started_ + milliseconds(i < kFirstMs.size() ? kFirstMs[i] : 0);
    const auto pause = i < kFirstMs.size() ? until - Now::now() : Now::duration(std::chrono::seconds{2});
    polled_.wait_for(lock, stop, pause, [&] { return complete_.load(); });
  }
}

void FillJob::report(const Result<>& outcome) const {
  auto& metrics = obs::metrics();
  const auto seconds = std::chrono::duration<double>(Now::now() - started_).count();
  const auto bytes = [&](const char* source, std::uint64_t count) {
    metrics.count("educloud_nc_fill_bytes_total", "Bytes that fills got, by source: frames, or local copies.",
                  static_cast<double>(count), {{"source", source}});
  };
  bytes("cc", counters_.cc_bytes);
  bytes("peer", counters_.peer_bytes);
  bytes("local", counters_.local_bytes);
  metrics.count("educloud_nc_fills_total", "Fills that ended, by result.", 1,
                {{"result", outcome ? "ok" : std::string(to_string(outcome.error().code))}});
  const auto made = state();
  obs::info("cache.fill_ended", {{"image", request_.imgid},
                                 {"version", request_.version},
                                 {"result", outcome ? "ok" : outcome.error().message},
                                 {"kind", made ? static_cast<int>(made->plan.kind) : -1},
                                 {"cc_bytes", counters_.cc_bytes.load()},
                                 {"peer_bytes", counters_.peer_bytes.load()},
                                 {"local_bytes", counters_.local_bytes.load()},
                                 {"seconds", seconds}});
}

}  // namespace educloud::nc
