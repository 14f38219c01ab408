#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <thread>
#include <vector>

#include "nc/cache/fill_job.hpp"

namespace educloud::nc {

/// The fills of a node: one per version however many wait for it, the best priority first, so many at once.
/// Thread-safe.
class FillTable {
 public:
  FillTable(const FillContext& context, std::function<void()> on_ended);
  ~FillTable();
  FillTable(const FillTable&) = delete;
  FillTable& operator=(const FillTable&) = delete;

  /// A part in a fill. When the last one is gone before its end, the fill is stopped.
  class Ticket {
   public:
    Ticket(FillTable& table, VersionKey key, std::uint64_t id)
        : table_(table), key_(std::move(key)), id_(id) {}
    ~Ticket();
    Ticket(const Ticket&) = delete;
    Ticket& operator=(const Ticket&) = delete;
    /// null until it has begun.
    std::shared_ptr<FillJob> job() const;
    /// Waits so long for the end. nullopt: not yet.
    std::optional<Result<>> wait(std::chrono::milliseconds time, std::stop_token stop) const;

   private:
    FillTable& table_;
    const VersionKey key_;
    const std::uint64_t id_;
  };
  /// Errors: conflict (that version is being fetched with another digest), cancelled (stopped).
  Result<std::unique_ptr<Ticket>> join(const FillRequest& request);

  /// The running fill of a version; null: none.
  std::shared_ptr<FillJob> find(const VersionKey& key) const;
  bool is_idle() const;
  /// Frees what ended fills held.
  void reap();
  /// Stops all and waits for them. Idempotent.
  void stop();

 private:
  struct Entry {
    std::uint64_t id = 0;
    FillRequest request;
    int tickets = 0;
    std::shared_ptr<FillJob> job;
    std::optional<Result<>> outcome;
    std::stop_source stop;
    std::jthread thread;
  };
  using EntryPtr = std::shared_ptr<Entry>;

  void schedule();
  void run(const EntryPtr& entry);
  void leave(const VersionKey& key, std::uint64_t id);

  const FillContext context_;
  const std::function<void()> on_ended_;
  mutable std::mutex mutex_;
  mutable std::condition_variable_any changed_;
  std::map<VersionKey, EntryPtr> current_;       ///< waiting and running
  std::map<std::uint64_t, EntryPtr> by_ticket_;  ///< also ended ones somebody still asks about
  std::vector<EntryPtr> ended_;                  ///< their threads are to be joined
  int running_ = 0;
  bool stopped_ = false;
  std::uint64_t next_id_ = 1;
};

}  // namespace educloud::nc
