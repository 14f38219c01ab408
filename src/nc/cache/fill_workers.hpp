#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "common/transfer/chunk_client.hpp"
#include "nc/cache/chunk_writer.hpp"
#include "nc/cache/fill_job.hpp"

namespace educloud::nc {

/// The threads that fetch: some for the cc, some for neighbours, one for what somebody waits for, one that
/// copies from the base. They end when nothing is left, at the first error that repeating does not mend, or
/// when told.
class FillWorkers {
 public:
  FillWorkers(const FillContext& context, const FillRequest& request, FillState& state,
              FillCounters& counters, PeerSet& peers);
  /// Stops and joins.
  ~FillWorkers();
  FillWorkers(const FillWorkers&) = delete;
  FillWorkers& operator=(const FillWorkers&) = delete;

  void start();
  /// Somebody waits for a chunk.
  void wake();
  /// New neighbours: more threads for them.
  void peers_changed();
  /// Waits for an event, at most so long. True: all is written, or it failed.
  bool wait(std::chrono::milliseconds time, std::stop_token stop);
  /// Stops and joins all.
  void stop();
  std::optional<Error> error() const;

 private:
  enum class Kind { cc, peer, urgent };
  struct Worker;

  void add(Kind kind);
  void work(Kind kind, std::stop_token stop);
  void copy(std::stop_token stop);
  std::optional<WorkQueue::Unit> next(Kind kind) const;
  Result<> fetch(Worker& worker, transfer::ChunkClient& client, const WorkQueue::Unit& unit,
                 std::stop_token stop);
  void from_cc(Worker& worker, const WorkQueue::Unit& unit, std::stop_token stop);
  void from_peer(Worker& worker, const WorkQueue::Unit& unit, std::stop_token stop);
  void judge_peer(const std::string& node, const Error& error, bool gave_something);
  void drop_peer(const std::string& node, const Error& error);
  bool gives_up(const Worker& worker, const Error& error) const;
  void fail_with(Error error);
  bool is_over() const;
  void idle(std::chrono::milliseconds time, bool until_urgent, std::stop_token stop);
  std::unique_ptr<transfer::ChunkClient> borrow(const Peer& peer);
  void give_back(const std::string& node, std::unique_ptr<transfer::ChunkClient> client);

  const FillContext& context_;
  const FillRequest& request_;
  FillState& state_;
  FillCounters& counters_;
  PeerSet& peers_;

  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  std::optional<Error> error_;
  std::map<std::string, std::vector<std::unique_ptr<transfer::ChunkClient>>> idle_clients_;
  std::map<std::string, int> silent_;  ///< answers without any chunk, in a row
  bool copied_ = false;
  std::size_t peer_threads_ = 0;
  std::stop_source stop_;
  std::vector<std::jthread> threads_;
};

}  // namespace educloud::nc
