#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "common/chunk/chunk_id.hpp"

// Private to common/chunk: which frame is where (index.sqlite). No locking: one thread at a time per object.
namespace educloud::chunk {

/// Where a frame lies.
struct Place {
  static constexpr int kOffsetBits = 36;
  static constexpr std::uint64_t kMaxPackBytes = std::uint64_t{1} << 35;
  static constexpr std::uint32_t kMaxPack = (1U << 26) - 1;

  std::uint32_t pack = 0;
  std::uint64_t offset = 0;
  std::uint32_t length = 0;     ///< of the whole frame
  std::uint32_t raw_bytes = 0;  ///< of the chunk

  std::uint64_t end() const { return offset + length; }
  static std::int64_t first_key(std::uint32_t pack) {
    return static_cast<std::int64_t>(std::uint64_t{pack} << kOffsetBits);
  }
  /// Sorts as the frames were put; the row's key, never used twice.
  std::int64_t key() const { return first_key(pack) + static_cast<std::int64_t>(offset); }
  bool operator==(const Place&) const = default;
};

struct IndexRow {
  ChunkId id;
  Place place;
  std::int64_t dead_since = 0;  ///< unix ms of the sweep that found it unused; 0: needed
};

struct IndexTotals {
  std::uint64_t chunks = 0, raw_bytes = 0, stored_bytes = 0;
};

/// A read-only connection. Sees what is committed.
class IndexReader {
 public:
  /// Errors: not_found, corrupt, internal (as all members).
  static Result<std::unique_ptr<IndexReader>> open(const std::filesystem::path& file);
  ~IndexReader();

  /// By position; all in one snapshot. Those for which `wanted(i)` is false are not looked for.
  Result<> find(std::span<const ChunkId> ids, const std::function<bool(std::size_t)>& wanted,
                std::vector<std::optional<IndexRow>>& out);
  /// At most `limit` rows behind `key` (-1: from the start) and before `end`, by place.
  Result<std::vector<IndexRow>> after(std::int64_t key, std::int64_t end, std::size_t limit);
  /// Bytes of the frames of a pack.
  Result<std::uint64_t> live_bytes(std::uint32_t pack);
  /// The last row of a pack.
  Result<std::optional<IndexRow>> last_of(std::uint32_t pack);
  /// Packs that have rows, rising.
  Result<std::vector<std::uint32_t>> packs();
  /// Pack -> last use, as saved.
  Result<std::map<std::uint32_t, std::uint64_t>> uses();
  Result<IndexTotals> totals();

  /// A set of rows beside the index, kept by this connection in a temporary file.
  Result<> clear_marks();
  Result<> mark(std::span<const ChunkId> ids);
  struct MarkedRow {
    IndexRow row;
    bool marked = false;
  };
  Result<std::vector<MarkedRow>> marked_after(std::int64_t key, std::size_t limit);

  struct Impl;

 private:
  explicit IndexReader(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// The one connection that writes. Each call is one transaction.
class IndexWriter {
 public:
  /// Makes the file if it is not there. `durable`: a transaction survives a power cut when its call returns;
  /// else at least the file stays whole. Errors: corrupt, exhausted, internal (as all members).
  static Result<std::unique_ptr<IndexWriter>> open(const std::filesystem::path& file, bool durable);
  ~IndexWriter();

  /// `uses`: pack -> last use, saved along.
  Result<> insert(std::span<const IndexRow> rows, const std::map<std::uint32_t, std::uint64_t>& uses);
  /// They are needed (again). By position: whether the row is still there.
  Result<std::vector<bool>> revive(std::span<const std::int64_t> keys);
  Result<> remove(std::span<const std::int64_t> keys);
  /// Rows of a pack whose frames end behind `end`; 0: all of them. Returns how many.
  Result<std::uint64_t> cut_pack(std::uint32_t pack, std::uint64_t end);
  /// One step of a sweep. `dead`: unused rows that are noted with `now` unless they are noted already;
  /// `removable`: removed if they are noted at or before `limit`. Returns what was removed.
  struct Swept {
    std::uint64_t newly_dead = 0;
    std::uint64_t removed = 0;
  };
  Result<Swept> sweep(std::span<const std::int64_t> dead, std::span<const std::int64_t> removable,
                      std::int64_t now, std::int64_t limit);

  struct Impl;

 private:
  explicit IndexWriter(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace educloud::chunk
