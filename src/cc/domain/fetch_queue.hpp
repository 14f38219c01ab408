#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <deque>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace educloud::cc {

/// SHA-256 of a chunk, as chunk::ChunkId holds it.
using ChunkKey = std::array<std::uint8_t, 32>;
struct ChunkKeyHash {
  std::size_t operator()(const ChunkKey& key) const {
    std::size_t value = 0;
    std::memcpy(&value, key.data(), sizeof value);
    return value;
  }
};
using VersionKey = std::pair<std::string, int>;

/// Chunks that readers wait for and nobody has yet: each is asked for once, whoever wants it (single flight),
/// best priority first, then first come first served, but readers take turns. Chunks that no reader wants any
/// more leave the line. Pure; not thread-safe. Bounded by its callers: readers times ids per reader.
class FetchQueue {
 public:
  static constexpr int kPriorities = 3;  ///< 0 is served first
  using Reader = std::uint64_t;
  /// Where a chunk goes: place `index` of that reader's ids.
  struct Want {
    Reader reader = 0;
    std::uint32_t index = 0;
  };
  struct Wanted {
    ChunkKey key;
    std::uint32_t index = 0;
  };
  /// Chunks to ask for in one request. Whoever takes one hands each key to arrived() or put_back(), then
  /// calls done().
  struct Batch {
    int priority = 0;
    std::int64_t run = 0;
    VersionKey version;
    std::vector<ChunkKey> keys;
  };

  /// `first_batch`: keys in the first batch of each reader, so that its first chunk is there soon.
  explicit FetchQueue(std::size_t first_batch) : first_batch_(first_batch) {}

  /// A key that is in the line or under way already gets one more receiver, and the better priority.
  void want(Reader reader, int priority, const VersionKey& version, std::span<const Wanted> wanted);
  /// The next at most `max` keys, none of a priority after `worst`; nullopt: nothing to do.
  std::optional<Batch> take(std::size_t max, int worst);
  /// Who gets it; nobody does any longer after this. Also for a key that can not be had.
  std::vector<Want> arrived(const ChunkKey& key);
  /// `keys` (of `batch`, not arrived) go to the front of their line, to be asked for in a smaller batch: if
  /// one of them is the reason, it stands alone in the end.
  void put_back(const Batch& batch, std::span<const ChunkKey> keys);
  /// A batch is worked off.
  void done(const Batch& batch);
  /// The reader is gone. Its keys that nobody else wants are not asked for, if they were not yet.
  void drop(Reader reader);

  /// Readers that wait for any of `keys`, each once.
  std::vector<Reader> readers_of(std::span<const ChunkKey> keys) const;
  /// Keys of that priority that wait to be taken.
  std::size_t waiting(int priority) const { return waiting_[static_cast<std::size_t>(priority)]; }
  /// Keys in the line and under way.
  std::size_t size() const { return flights_.size(); }

 private:
  struct Flight {
    std::int64_t run = 0;
    int priority = 0;
    bool taken = false;
    Want first;  ///< nearly always the only one
    bool wanted = true;
    std::vector<Want> more;
  };
  /// Keys that came in one call and are asked for in their order.
  struct Run {
    VersionKey version;
    std::deque<ChunkKey> keys;  ///< may hold keys that moved or went; those are passed over
    std::size_t live = 0;       ///< keys that did not
    std::size_t in_flight = 0;  ///< batches
    std::size_t next_most = 0;  ///< keys in the next batch, at most; the ones after it are not bound
  };
  using Runs = std::map<std::int64_t, Run>;

  Runs& runs(int priority) { return runs_[static_cast<std::size_t>(priority)]; }
  void enqueue(Flight& flight, const ChunkKey& key, std::int64_t run, int priority);
  /// The flight leaves the line (it stays in `flights_`).
  void unqueue(Flight& flight);
  void forget_want(Flight& flight, Reader reader);

  const std::size_t first_batch_;
  std::unordered_map<ChunkKey, Flight, ChunkKeyHash> flights_;
  std::array<Runs, kPriorities> runs_;
  std::array<std::size_t, kPriorities> waiting_{};
  std::unordered_map<Reader, std::vector<ChunkKey>> readers_;
  std::int64_t last_run_ = 0;
  std::int64_t first_run_ = 0;
};

}  // namespace educloud::cc
