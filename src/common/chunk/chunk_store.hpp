#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "common/chunk/frame.hpp"
#include "common/sys/file.hpp"

namespace educloud::chunk {

/// A whole frame (header and stored bytes) inside an open file. Stays readable while it is held, even if the
/// store removes the pack meanwhile.
struct FrameSlice {
  std::shared_ptr<const sys::Fd> file;
  std::uint64_t offset = 0;
  std::uint32_t length = 0;
  std::uint32_t raw_bytes = 0;
};

struct StoreStats {
  std::uint64_t chunks = 0;
  std::uint64_t raw_bytes = 0;     ///< what the chunks hold unpacked
  std::uint64_t stored_bytes = 0;  ///< their frames
  std::uint64_t disk_bytes = 0;    ///< blocks that packs and index occupy
};

/// What a sweep did.
struct SweepReport {
  std::uint64_t live = 0, newly_dead = 0, removed = 0;
  std::uint64_t freed_bytes = 0;
};

struct Damage {
  ChunkId id;
  std::string pack;  ///< file name
  std::uint64_t offset = 0;
  std::string what;
};

/// Content-addressed chunks of one daemon (walrus, cc), each stored once, below one directory:
///   packs/<n>.pack    frames one after the other; appended to, never rewritten
///   index.sqlite      id -> pack, offset, length; commits only after the pack is synced
/// A crash loses at most what was not flushed: a pack's tail that the index does not know is cut at open.
/// Frames come back in the order they were put, so a version that was stored in one go is read in one go. All
/// members may be called from any thread.
class ChunkStore {
 public:
  struct Options {
    std::uint64_t pack_bytes = 256ull << 20;
    /// False for a cache: no fsync; what a power cut damaged is found by its checksum and fetched again, and
    /// a damaged index means an empty store.
    bool durable = true;
    /// Of the packs; 0: no bound. Else put() evicts the least recently used packs that no FrameSlice holds;
    /// packs are then at most a sixteenth of this.
    std::uint64_t max_bytes = 0;
    std::size_t commit_every = 512;  ///< frames put between two commits of the index
  };

  /// Errors: conflict if another process has it open; corrupt (index), permission_denied, exhausted,
  /// internal.
  static Result<std::unique_ptr<ChunkStore>> open(const std::filesystem::path& directory, Options options);
  /// Looks only, also while a daemon has it open (no lock is taken): find, missing, verify and stats work,
  /// what changes is refused with conflict. What is not flushed yet is not seen; what is removed meanwhile
  /// may still be answered. Errors: not_found, corrupt, permission_denied, internal.
  static Result<std::unique_ptr<ChunkStore>> open_read_only(const std::filesystem::path& directory);
  virtual ~ChunkStore() = default;

  /// What of `ids` is not here, by position. `keep`: those that are here are not swept for another grace
  /// period, because the asker is about to refer to them.
  virtual Result<std::vector<bool>> missing(std::span<const ChunkId> ids, bool keep) = 0;
  /// By position; nullopt: not here. Counts as use.
  virtual Result<std::vector<std::optional<FrameSlice>>> find(std::span<const ChunkId> ids) = 0;
  /// Takes a frame whose content the caller proved (FrameDecoder) or trusts (its own). Visible at once;
  /// durable after flush() or the next commit. Here already: success, nothing is written. Errors: exhausted
  /// (disk full or nothing left to evict), internal.
  virtual Result<> put(const FrameHeader& header, std::span<const char> stored) = 0;
  /// All that was put is durable (if the store is) and indexed when it returns.
  virtual Result<> flush() = 0;
  /// Forgets one chunk, for instance a damaged one. Not here: success.
  virtual Result<> forget(const ChunkId& id) = 0;

  /// Removes what nothing needs: `mark` calls its argument with every live id (any order, repeats allowed). A
  /// chunk is removed when it was not marked, nor put, nor asked for with `keep`, for `grace`: so the first
  /// sweep only notes it as dead. Space comes back by removing packs and punching holes into them. Safe at
  /// any kill.
  using Mark = std::function<Result<>(const std::function<void(std::span<const ChunkId>)>& live)>;
  virtual Result<SweepReport> sweep(const Mark& mark, std::chrono::seconds grace, std::stop_token stop) = 0;
  /// Reads every frame, unpacks it, checks all; reports each damaged one. Returns how many frames it read.
  /// `on_bytes(done, total)`: of stored bytes, at most once per MiB. Errors: cancelled, corrupt (index),
  /// internal; damage is no error.
  virtual Result<std::uint64_t> verify(const std::function<void(const Damage&)>& on_damage,
                                       const std::function<void(std::uint64_t, std::uint64_t)>& on_bytes,
                                       std::stop_token stop) = 0;
  virtual Result<StoreStats> stats() = 0;
};

/// Reads a slice's frame and splits it. Errors: corrupt (header, not the id asked for), internal.
struct LoadedFrame {
  FrameHeader header;
  std::string stored;
};
Result<LoadedFrame> load(const FrameSlice& slice);

}  // namespace educloud::chunk
