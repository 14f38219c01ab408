#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>
#include <thread>

#include "common/transfer/chunk_client.hpp"
#include "nc/cache/chunk_writer.hpp"
#include "nc/cache/fill_journal.hpp"
#include "nc/cache/fill_state.hpp"
#include "nc/cache/frame_ring.hpp"
#include "nc/cache/local_versions.hpp"
#include "nc/cache/node_cache.hpp"
#include "nc/cache/peer_set.hpp"

namespace educloud::nc {

/// What all fills of a node share; outlives them.
struct FillContext {
  const CacheOptions& options;
  LocalVersions& local;
  FrameRing& ring;
};

class FillWorkers;

/// Brings one version here: manifest, plan, file and journal, workers, publication.
class FillJob {
 public:
  FillJob(const FillContext& context, FillRequest request);
  ~FillJob();
  FillJob(const FillJob&) = delete;
  FillJob& operator=(const FillJob&) = delete;

  const FillRequest& request() const { return request_; }
  /// Once, on a thread of its own. Cancelled: what is there stays for the next time.
  Result<> run(std::stop_token stop);
  /// null until it is known what the version consists of. Any thread.
  std::shared_ptr<FillState> state() const;
  /// May be held on to when the job is gone.
  std::shared_ptr<const FillCounters> counters() const { return shared_counters_; }
  /// Encoded; empty until it is known.
  std::string manifest() const;
  /// Somebody reads and waits for this chunk.
  void demand(std::uint64_t chunk, bool again);

 private:
  Result<chunk::Manifest> fetch_manifest(transfer::ChunkClient& client, std::stop_token stop);
  Result<> prepare(std::stop_token stop);
  /// Keeps a version as it is and opens it; nullopt: it is of no use any more.
  std::optional<image::LayeredDisk> hold_base(const BaseVersion& chosen);
  Result<> open_target(std::shared_ptr<FillState> state, const FillTarget::Base& base, std::string base_name);
  Result<> reserve_room(const FillState& state, const ChunkBits& there);
  void queue_work(FillState& state);
  Result<> transfer(std::stop_token stop);
  Result<> commit(FillState& state);
  Result<> publish(FillState& state);
  void discard();
  void poll_peers(std::stop_token stop);
  void report(const Result<>& outcome) const;

  const FillContext context_;
  const FillRequest request_;
  const std::filesystem::path part_path_, journal_path_;
  const WorkQueue::Time started_ = WorkQueue::Clock::now();
  const std::shared_ptr<FillCounters> shared_counters_ = std::make_shared<FillCounters>();
  FillCounters& counters_ = *shared_counters_;
  PeerSet peers_;
  std::optional<FillJournal> journal_;
  std::unique_ptr<LocalVersions::Lease> base_lease_;
  BaseVersion base_;

  mutable std::mutex mutex_;
  std::condition_variable_any polled_;
  bool first_poll_done_ = false, polling_ended_ = false;
  std::shared_ptr<FillState> state_;
  std::string manifest_;
  FillWorkers* workers_ = nullptr;  ///< while they work

  std::atomic<bool> complete_{false};
  std::jthread poller_;  ///< last: ends before what it uses
};

}  // namespace educloud::nc
