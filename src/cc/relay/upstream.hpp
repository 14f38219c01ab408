#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "cc/domain/fetch_queue.hpp"
#include "cc/domain/uplink_limit.hpp"
#include "cc/relay/walrus_clients.hpp"
#include "common/base/clock.hpp"
#include "common/chunk/chunk_store.hpp"
#include "common/transfer/chunk_routes.hpp"

namespace educloud::cc {

/// Where one reader finds what it waits for. Filled by the upstream's workers, emptied by the reader.
class Mailbox {
 public:
  using Item = std::pair<std::uint32_t, Result<transfer::Frame>>;

  /// What is there; without waiting.
  std::vector<Item> take();
  /// Waits until place `index` is there, then takes all. Errors: timeout at `deadline`, with what the
  /// upstream last complained about; cancelled; unavailable (closed).
  Result<std::vector<Item>> wait_for(std::uint32_t index, std::chrono::steady_clock::time_point deadline,
                                     const std::stop_token& stop);
  void put(std::vector<Item> items);
  /// Something is in the way, and tried again.
  void note_trouble(const Error& error);
  /// Nothing more will come.
  void close();

 private:
  std::mutex mutex_;
  std::condition_variable_any filled_;
  std::vector<Item> items_;
  std::optional<std::uint32_t> awaited_;
  bool awaited_is_there_ = false;
  std::optional<Error> trouble_;
  bool closed_ = false;
};

/// Takes chunks from walrus into the store, each once whoever wants it, over a few connections, within the
/// uplink's limit of the hour, and tells those who wait as each arrives. What fails in a way that may pass is
/// tried again for as long as somebody waits. Thread-safe.
class Upstream {
 public:
  struct Options {
    int connections = 4;
    std::size_t first_batch = 8;  ///< chunks in the first request for a reader: its first frame comes soon
    std::size_t batch = 64;       ///< in any other; at most 4 MiB of disk, so that a user soon gets a turn
    std::vector<UplinkWindow> uplink = {};
    std::chrono::milliseconds first_pause{50};  ///< after a failure, doubled up to the next
    std::chrono::milliseconds longest_pause{2000};
  };

  Upstream(Options options, WalrusClients& walrus, chunk::ChunkStore& store, const Clock& clock);
  ~Upstream();
  Upstream(const Upstream&) = delete;
  Upstream& operator=(const Upstream&) = delete;

  /// Puts chunks in the line for a new reader; each is told to `mailbox` once. Returns the reader's number,
  /// to drop() it with.
  std::uint64_t want(const transfer::ChunkCaller& caller, std::span<const FetchQueue::Wanted> wanted,
                     std::shared_ptr<Mailbox> mailbox);
  void drop(std::uint64_t reader);

  /// While one lives, its reader waits: every frame is told at once, else in groups. What was put into the
  /// store before it was made may have been told to nobody yet, so look there once more.
  class Waiting {
   public:
    explicit Waiting(Upstream& upstream) : waiting_(upstream.waiting_) { ++waiting_; }
    ~Waiting() { --waiting_; }
    Waiting(const Waiting&) = delete;
    Waiting& operator=(const Waiting&) = delete;

   private:
    std::atomic<int>& waiting_;
  };
  /// Ends the workers; nobody is told anything after it. Idempotent.
  void stop();

 private:
  struct Fetching;  ///< one batch while it is worked on

  void work(const std::stop_token& stop);
  std::optional<FetchQueue::Batch> next(const std::stop_token& stop);
  std::optional<FetchQueue::Batch> take_now();
  void serve(FetchQueue::Batch batch, const std::stop_token& stop);
  /// Hands out what is in the store by now, and leaves the rest in the batch.
  void skip_present(FetchQueue::Batch& batch);
  Result<> fetch_missing(Fetching& fetching, const std::stop_token& stop);
  Result<> on_frame(Fetching& fetching, const chunk::FrameHeader& header, std::span<const char> stored,
                    const std::stop_token& stop);
  /// Into the store, or where that is full into memory.
  Result<transfer::Frame> keep(const chunk::FrameHeader& header, std::span<const char> stored,
                               const std::stop_token& stop);
  /// Tells those who wait what came so far.
  void deliver(Fetching& fetching);
  bool is_time_to_deliver(const Fetching& fetching) const;
  void hand_out(std::span<const ChunkKey> keys, std::vector<Result<transfer::Frame>> frames);
  void after_failure(Fetching& fetching, const Error& error);
  void retry_later(Fetching& fetching, std::span<const ChunkKey> keys, const Error& error);
  void throttle(Fetching& fetching, std::uint64_t bytes, const std::stop_token& stop);
  /// For how long this batch should receive nothing more.
  std::chrono::milliseconds hold_back(const Fetching& fetching, std::uint64_t bytes, bool may_yield);
  bool users_wait();
  int minute_of_day();

  const Options options_;
  WalrusClients& walrus_;
  chunk::ChunkStore& store_;
  const Clock& clock_;

  std::mutex mutex_;  ///< the queue and who reads; never held over I/O
  std::condition_variable_any work_there_;
  FetchQueue queue_;
  std::unordered_map<std::uint64_t, std::shared_ptr<Mailbox>> mailboxes_;
  std::uint64_t last_reader_ = 0;
  int low_in_flight_ = 0;  ///< batches that no user waits for
  int users_in_flight_ = 0;
  std::chrono::milliseconds pause_;
  std::chrono::steady_clock::time_point resume_at_{};
  bool failing_ = false;
  bool stopped_ = false;

  std::mutex limit_mutex_;
  UplinkLimit limit_;
  std::int64_t minute_known_s_ = -1;
  int minute_ = 0;
  std::shared_ptr<std::atomic<std::uint64_t>> memory_bytes_;  ///< of frames that the store could not take

  std::atomic<int> waiting_{0};  ///< readers

  std::vector<std::jthread> workers_;
};

}  // namespace educloud::cc
