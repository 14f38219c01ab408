#include "nc/cache/fill_workers.hpp"

#include <algorithm>

#include "common/obs/log.hpp"
#include "common/obs/metrics.hpp"

namespace educloud::nc {
namespace {

using std::chrono::milliseconds;
using Now = WorkQueue::Clock;

/// Chunks asked for at once: 16 MiB of disk, or one group where neighbours want to follow closely.
constexpr std::size_t kUnitChunks = 256;
constexpr std::size_t kSharedUnitChunks = chunk::kGroupChunks;
constexpr int kPerPeer = 2;
/// With the cc's workers, once they have nothing else to do.
constexpr int kPerPeerAtTheEnd = 4;
constexpr std::size_t kMaxPeerThreads = 8;
constexpr int kMaxSilent = 3;
constexpr int kMaxCorrupt = 3;
constexpr milliseconds kFirstPause{200};
constexpr milliseconds kLongestPause{5000};
constexpr milliseconds kIdle{20};
constexpr std::chrono::seconds kPeerConnect{2};
constexpr std::chrono::seconds kPeerSilence{5};

}  // namespace

/// What a thread keeps for itself.
struct FillWorkers::Worker {
  Worker(FillState& state, FillCounters& counters) : writer(state, counters) {}
  ChunkWriter writer;
  std::unique_ptr<transfer::ChunkClient> cc;
  milliseconds pause = kFirstPause;
  int corrupt = 0;
  std::size_t came = 0;  ///< frames of the present unit
};

FillWorkers::FillWorkers(const FillContext& context, const FillRequest& request, FillState& state,
                         FillCounters& counters, PeerSet& peers)
    : context_(context), request_(request), state_(state), counters_(counters), peers_(peers) {
  counters_.moved_at_ms = WorkQueue::Pulse::to_ms(Now::now());
}

FillWorkers::~FillWorkers() {
  stop();
}

void FillWorkers::start() {
  add(Kind::urgent);
  for (int i = 0; i < std::max(1, context_.options.connections); ++i) add(Kind::cc);
  {
    const std::lock_guard lock(mutex_);
    threads_.emplace_back([this] { copy(stop_.get_token()); });
  }
  peers_changed();
}

void FillWorkers::add(Kind kind) {
  const std::lock_guard lock(mutex_);
  if (stop_.stop_requested()) return;
  threads_.emplace_back([this, kind] { work(kind, stop_.get_token()); });
}

void FillWorkers::peers_changed() {
  const auto wanted = std::min(peers_.live().size() * kPerPeer, kMaxPeerThreads);
  for (; peer_threads_ < wanted; ++peer_threads_) add(Kind::peer);
}

void FillWorkers::stop() {
  std::vector<std::jthread> threads;
  {
    const std::lock_guard lock(mutex_);
    stop_.request_stop();
    threads.swap(threads_);
  }
  threads.clear();  // joins
}

std::optional<Error> FillWorkers::error() const {
  const std::lock_guard lock(mutex_);
  return error_;
}

void FillWorkers::fail_with(Error error) {
  const std::lock_guard lock(mutex_);
  if (!error_) error_ = std::move(error);
  changed_.notify_all();
}

bool FillWorkers::is_over() const {
  const std::lock_guard lock(mutex_);
  return error_.has_value() || (copied_ && state_.queue.left() == 0);
}

bool FillWorkers::wait(milliseconds time, std::stop_token stop) {
  if (is_over()) return true;
  idle(time, false, stop);
  return is_over();
}

void FillWorkers::wake() {
  const std::lock_guard lock(mutex_);
  changed_.notify_all();
}

void FillWorkers::idle(milliseconds time, bool until_urgent, std::stop_token stop) {
  std::unique_lock lock(mutex_);
  const auto left = state_.queue.left();
  changed_.wait_for(lock, stop, time, [&] {
    return error_.has_value() || (left != 0 && state_.queue.left() == 0) ||
           (until_urgent && state_.queue.has_urgent());
  });
}

std::optional<WorkQueue::Unit> FillWorkers::next(Kind kind) const {
  const auto now = Now::now();
  auto& queue = state_.queue;
  if (kind != Kind::peer) {
    if (auto unit = queue.take_urgent(now)) return unit;
  }
  if (kind == Kind::urgent) return std::nullopt;
  if (kind == Kind::cc) {
    const auto size = peers_.enabled() ? kSharedUnitChunks : kUnitChunks;
    if (auto unit = queue.take(WorkQueue::kCc, size, now)) return unit;
  }
  if (const auto peer = queue.busiest_peer(kind == Kind::cc ? kPerPeerAtTheEnd : kPerPeer, now)) {
    if (auto unit = queue.take(*peer, kSharedUnitChunks, now)) return unit;
  }
  return kind == Kind::cc ? queue.steal(now) : std::nullopt;
}

void FillWorkers::work(Kind kind, std::stop_token stop) {
  Worker worker(state_, counters_);
  while (!stop.stop_requested() && !is_over()) {
    const auto unit = next(kind);
    if (!unit) {
      idle(kIdle, kind != Kind::peer, stop);
    } else if (unit->source == WorkQueue::kCc) {
      from_cc(worker, *unit, stop);
    } else {
      from_peer(worker, *unit, stop);
    }
  }
  const std::lock_guard lock(mutex_);
  changed_.notify_all();
}

Result<> FillWorkers::fetch(Worker& worker, transfer::ChunkClient& client, const WorkQueue::Unit& unit,
                            std::stop_token stop) {
  std::vector<chunk::ChunkId> ids;
  ids.reserve(unit.chunks.size());
  for (const auto at : unit.chunks) ids.push_back(state_.wanted.at(at));
  worker.came = 0;
  auto& bytes = unit.source == WorkQueue::kCc ? counters_.cc_bytes : counters_.peer_bytes;
  const bool shares = peers_.enabled();
  const auto on_frame = [&](const chunk::FrameHeader& header, std::span<const char> stored) -> Result<> {
    if (worker.came >= unit.chunks.size()) return fail(ErrorCode::corrupt, "more frames than asked for");
    const auto at = unit.chunks[worker.came];
    bytes += header.frame_bytes();
    if (!state_.marks->test(at)) {
      if (auto done = worker.writer.add_frame(at, header, stored); !done) return done;
      if (shares) context_.ring.put(header, stored);
    }
    ++worker.came;
    unit.beat(Now::now());
    return {};
  };
  auto done = client.fetch(ids, on_frame, stop);
  // What came is proven, whatever happened then.
  auto flushed = worker.writer.flush();
  if (const auto& disk = worker.writer.disk_error()) fail_with(*disk);
  state_.queue.close(unit, Now::now());
  if (!flushed) return flushed;
  if (done && worker.came != ids.size())
    return fail(ErrorCode::unavailable, "the answer ended before all chunks had come");
  return done;
}

bool FillWorkers::gives_up(const Worker& worker, const Error& error) const {
  switch (error.code) {
    case ErrorCode::unavailable:
    case ErrorCode::timeout:
    case ErrorCode::internal:
    case ErrorCode::exhausted: return false;
    case ErrorCode::corrupt: return worker.corrupt >= kMaxCorrupt;
    default: return true;
  }
}

void FillWorkers::from_cc(Worker& worker, const WorkQueue::Unit& unit, std::stop_token stop) {
  if (!worker.cc) {
    worker.cc = std::make_unique<transfer::ChunkClient>(
        transfer::ChunkRemote{context_.options.cc, request_.imgid, request_.version, request_.grant,
                              request_.priority, context_.options.client});
  }
  const auto done = fetch(worker, *worker.cc, unit, stop);
  if (done) {
    worker.pause = kFirstPause;
    worker.corrupt = 0;
    return;
  }
  const auto& error = done.error();
  if (stop.stop_requested() || worker.writer.disk_error()) return;
  if (error.code == ErrorCode::corrupt) ++worker.corrupt;
  const auto still_ms =
      WorkQueue::Pulse::to_ms(Now::now()) - counters_.moved_at_ms.load(std::memory_order_relaxed);
  const bool stalled = still_ms >= milliseconds(context_.options.stall_timeout).count();
  if (gives_up(worker, error) || stalled) {
    fail_with(stalled ? Error{error.code, "nothing moved for " + std::to_string(still_ms / 1000) +
                                              " s; last: " + error.message}
                      : error);
    return;
  }
  obs::debug("cache.cc_retry", {{"image", request_.imgid}, {"error", error.message}});
  if (worker.came > 0) worker.pause = kFirstPause;
  idle(worker.pause, false, stop);
  worker.pause = std::min(worker.pause * 2, kLongestPause);
}

void FillWorkers::from_peer(Worker& worker, const WorkQueue::Unit& unit, std::stop_token stop) {
  const auto peer = peers_.find(unit.source);
  if (!peer) {  // gone meanwhile; its groups are dealt out anew
    state_.queue.close(unit, Now::now());
    state_.queue.set_peers(peers_.live(), Now::now());
    return;
  }
  auto client = borrow(*peer);
  const auto done = fetch(worker, *client, unit, stop);
  if (worker.came > 0) {
    const std::lock_guard lock(mutex_);
    silent_.erase(peer->node);
  }
  if (done) {
    give_back(peer->node, std::move(client));
    return;
  }
  if (stop.stop_requested() || worker.writer.disk_error()) return;
  judge_peer(peer->node, done.error(), worker.came > 0);
}

void FillWorkers::judge_peer(const std::string& node, const Error& error, bool gave_something) {
  // It may wait itself for what was asked: that is no fault, unless it happens again and again.
  const bool is_soft = error.code == ErrorCode::not_found || error.code == ErrorCode::unavailable;
  bool is_hopeless = !is_soft;
  if (is_soft && !gave_something) {
    const std::lock_guard lock(mutex_);
    is_hopeless = ++silent_[node] >= kMaxSilent;
  }
  if (is_hopeless) return drop_peer(node, error);
  state_.queue.pause(node, Now::now() + kFirstPause);
}

void FillWorkers::drop_peer(const std::string& node, const Error& error) {
  obs::warn(
      "cache.peer_dropped",
      {{"image", request_.imgid}, {"version", request_.version}, {"peer", node}, {"error", error.message}});
  obs::metrics().count("educloud_nc_peers_dropped_total", "Neighbours not asked again in a fill.");
  peers_.drop(node);
  state_.queue.set_peers(peers_.live(), Now::now());
}

void FillWorkers::copy(std::stop_token stop) {
  ChunkWriter writer(state_, counters_);
  std::vector<std::uint64_t> damaged;
  for (const auto& one : state_.plan.copies) {
    if (stop.stop_requested() || writer.disk_error()) break;
    if (state_.marks->test(one.chunk)) continue;
    if (!writer.add_copy(one.chunk, one.from)) damaged.push_back(one.chunk);
  }
  (void)writer.flush();  // its error is looked at next
  if (writer.disk_error()) return fail_with(*writer.disk_error());
  if (stop.stop_requested()) return;
  if (!damaged.empty()) {
    obs::error("cache.base_damaged", {{"image", request_.imgid}, {"chunks", damaged.size()}});
    state_.queue.need(damaged, Now::now());
  }
  const std::lock_guard lock(mutex_);
  copied_ = true;
  changed_.notify_all();
}

std::unique_ptr<transfer::ChunkClient> FillWorkers::borrow(const Peer& peer) {
  {
    const std::lock_guard lock(mutex_);
    auto& idle = idle_clients_[peer.node];
    if (!idle.empty() && idle.back()->remote().grant == peer.grant) {
      auto client = std::move(idle.back());
      idle.pop_back();
      return client;
    }
    idle.clear();
  }
  auto options = context_.options.client;
  options.connect_timeout = std::min(options.connect_timeout, kPeerConnect);
  options.io_timeout = std::min(options.io_timeout, kPeerSilence);
  return std::make_unique<transfer::ChunkClient>(transfer::ChunkRemote{
      peer.url, request_.imgid, request_.version, peer.grant, request_.priority, options});
}

void FillWorkers::give_back(const std::string& node, std::unique_ptr<transfer::ChunkClient> client) {
  const std::lock_guard lock(mutex_);
  auto& idle = idle_clients_[node];
  if (idle.size() < kPerPeerAtTheEnd) idle.push_back(std::move(client));
}

}  // namespace educloud::nc
