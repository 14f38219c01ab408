#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <vector>

#include "common/chunk/chunk_index.hpp"
#include "common/chunk/chunk_store.hpp"
#include "common/chunk/pack_file.hpp"

// Private to common/chunk: the store that writes.
namespace educloud::chunk {

/// How it stays right:
///   - a frame is in its pack before anybody can find it, and its pack is synced before its row is committed;
///   - a place is never used twice, so a row always means the bytes it was written for;
///   - rows go before the bytes they name.
/// Locks, in this order: sweep_ > append_ > commit_ > state_, db_ (never both). No system call that waits for
/// a disk is made under state_ (but opening a pack).
class LocalStore final : public ChunkStore {
 public:
  LocalStore(std::filesystem::path directory, Options options, sys::Fd lock,
             std::unique_ptr<IndexWriter> writer, std::unique_ptr<IndexReader> reader);
  ~LocalStore() override;

  Result<std::vector<bool>> missing(std::span<const ChunkId> ids, bool keep) override;
  Result<std::vector<std::optional<FrameSlice>>> find(std::span<const ChunkId> ids) override;
  Result<> put(const FrameHeader& header, std::span<const char> stored) override;
  Result<> flush() override;
  Result<> forget(const ChunkId& id) override;
  Result<SweepReport> sweep(const Mark& mark, std::chrono::seconds grace, std::stop_token stop) override;
  Result<std::uint64_t> verify(const std::function<void(const Damage&)>& on_damage,
                               const std::function<void(std::uint64_t, std::uint64_t)>& on_bytes,
                               std::stop_token stop) override;
  Result<StoreStats> stats() override;

  /// Makes packs and index agree after a crash.
  Result<> recover();

 private:
  using Frames = std::unordered_map<ChunkId, Place, ChunkIdHash>;

  /// Where they are; of packs that are there. The caller holds state_.
  Result<std::vector<std::optional<IndexRow>>> look_up(std::span<const ChunkId> ids);
  /// What of `rows` a sweep has noted as dead is needed again; what it removed meanwhile becomes nullopt.
  Result<> revive(std::vector<std::optional<IndexRow>>& rows);
  Result<bool> is_here(const ChunkId& id);
  /// Room for a frame in a pack that is open for writing. The caller holds append_.
  struct Target {
    Pack* pack = nullptr;
    std::shared_ptr<const sys::Fd> file;
  };
  Result<Target> pack_for(std::uint64_t bytes);
  Result<> make_room(std::uint64_t bytes);
  Result<> evict_one(bool& evicted);
  void start_writeback(const sys::Fd& file, std::uint64_t end);
  /// Syncs and indexes what was put, if that is at least `at_least` frames.
  Result<> commit(std::size_t at_least);
  Result<> sync(const Frames& frames);

  Result<> recover_pack(Pack& pack);
  Result<SweepReport> remove_unmarked(IndexReader& marks, std::chrono::seconds grace, std::stop_token stop);
  Result<std::uint64_t> reclaim(std::stop_token stop);
  Result<std::uint64_t> reclaim_pack(IndexReader& reader, std::uint32_t number);

  const std::filesystem::path directory_;
  const Options options_;
  const sys::Fd lock_;

  std::mutex sweep_;   ///< one sweep at a time
  std::mutex append_;  ///< who writes to the active pack: moves its `end`, chooses another one
  std::uint64_t written_back_ = 0;
  std::mutex commit_;  ///< who moves pending_ to the index, or changes what it may move
  std::mutex db_;      ///< writer_
  const std::unique_ptr<IndexWriter> writer_;

  std::mutex state_;  ///< all below
  const std::unique_ptr<IndexReader> reader_;
  PackFiles packs_;
  std::uint32_t active_ = 0;  ///< changed by who holds append_, too
  Frames pending_;            ///< written, not yet being committed
  Frames committing_;         ///< on their way into the index
  std::uint64_t tick_ = 1;
  std::map<std::uint32_t, std::uint64_t> uses_;  ///< changed and not saved yet
  std::optional<Error> broken_;                  ///< a sync failed: nothing more can be promised
};

/// verify() of all that the index names. `open`: the file of a pack, null if there is none.
using OpenPack = std::function<Result<std::shared_ptr<const sys::Fd>>(std::uint32_t)>;
Result<std::uint64_t> verify_packs(IndexReader& reader, const OpenPack& open,
                                   const std::function<void(const Damage&)>& on_damage,
                                   const std::function<void(std::uint64_t, std::uint64_t)>& on_bytes,
                                   std::stop_token stop);

std::filesystem::path index_file(const std::filesystem::path& directory);
/// Bytes that the index's files occupy.
std::uint64_t index_bytes(const std::filesystem::path& directory);

}  // namespace educloud::chunk
