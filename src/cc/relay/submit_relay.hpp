#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>
#include <tuple>
#include <vector>

#include "cc/relay/chunk_relay.hpp"
#include "cc/relay/walrus_clients.hpp"
#include "common/base/clock.hpp"
#include "common/chunk/chunk_store.hpp"
#include "common/sys/thread_pool.hpp"
#include "common/transfer/chunk_routes.hpp"

namespace educloud::cc {

/// A node's submit on its way to walrus. Frames are proven (SHA-256) as they arrive, kept in the cache (their
/// neighbours will ask for them), and sent on from there in pieces while more come; nothing is confirmed
/// before walrus has it durable. Nothing is tried twice: the node does that. Thread-safe.
class SubmitRelay : public transfer::ChunkSink {
 public:
  struct Options {
    std::string data_key;                      ///< receipts must be signed with it
    std::size_t piece_bytes = 4ull << 20;      ///< sent to walrus at once
    std::size_t max_streams = 64;              ///< requests at once
    std::size_t senders = 4;                   ///< each has one piece in memory
    std::uint64_t memory_bytes = 32ull << 20;  ///< of frames that the cache could not take, all together
    /// A stream in which nothing came for so long was cut off.
    std::chrono::milliseconds idle{120'000};
  };

  SubmitRelay(Options options, ManifestCache& manifests, chunk::ChunkStore& store, WalrusClients& walrus,
              const Clock& clock);
  ~SubmitRelay() override;

  Result<std::vector<bool>> missing(const transfer::ChunkCaller& caller,
                                    std::vector<chunk::ChunkId> ids) override;
  Result<> store(const transfer::ChunkCaller& caller, const chunk::FrameHeader& header,
                 std::span<const char> stored) override;
  Result<> stored(const transfer::ChunkCaller& caller) override;
  Result<std::string> publish(const transfer::ChunkCaller& caller, const Publish& request,
                              std::stop_token stop) override;
  /// What is on its way is given up. Idempotent.
  void stop();

 private:
  struct Stream;
  /// Requests that tell no number of their own share a stream: then one's failure is the others' too.
  using Key = std::tuple<std::string, int, std::string, std::uint64_t>;

  static Key key_of(const transfer::ChunkCaller& caller);
  Result<std::shared_ptr<Stream>> stream_of(const transfer::ChunkCaller& caller);
  void forget_idle(std::int64_t now_ms);
  /// In the cache, or else in memory.
  Result<> keep(Stream& stream, const chunk::FrameHeader& header, std::span<const char> stored);
  Result<> close_piece(Stream& stream);
  Result<> begin_sending(const transfer::ChunkCaller& caller, const std::shared_ptr<Stream>& stream);
  void send_pieces(const transfer::ChunkCaller& caller, Stream& stream, const std::stop_token& stop);
  Result<> send(const transfer::ChunkCaller& caller, const std::vector<transfer::Frame>& piece,
                const std::stop_token& stop);

  const Options options_;
  ManifestCache& manifests_;
  chunk::ChunkStore& store_;
  WalrusClients& walrus_;
  const Clock& clock_;
  std::mutex mutex_;
  std::map<Key, std::shared_ptr<Stream>> streams_;
  std::deque<Key> forgotten_;  ///< what was given up lately: its end must not pass for a success
  const std::shared_ptr<std::atomic<std::uint64_t>> memory_bytes_;
  std::stop_source stop_;
  sys::ThreadPool pool_;
};

}  // namespace educloud::cc
