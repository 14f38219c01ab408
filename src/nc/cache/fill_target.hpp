#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>

#include "common/sys/file.hpp"
#include "nc/cache/fill_plan.hpp"

namespace educloud::nc {

/// The unfinished file of a version, in tmp/staging. Chunks are written in any order from several threads,
/// past the page cache where the file system takes that.
class FillTarget {
 public:
  /// The file a clone shares blocks with or a delta stands on.
  struct Base {
    std::filesystem::path file;  ///< absolute
    std::string format;
  };
  /// Makes `path` anew, in its first state (cloned, cut to size, new holes, tables), synced.
  /// Errors: exhausted, internal.
  static Result<std::unique_ptr<FillTarget>> create(const std::filesystem::path& path, const FillPlan& plan,
                                                    const Base& base);
  /// Opens what create() made. Errors: not_found, corrupt (its length).
  static Result<std::unique_ptr<FillTarget>> reopen(const std::filesystem::path& path, const FillPlan& plan,
                                                    const Base& base);
  /// True if files in `folder` can share blocks with `base`.
  static bool can_clone(const std::filesystem::path& folder, const std::filesystem::path& base);

  /// Where a chunk of plan.data lies in the file: a multiple of kChunkBytes.
  std::uint64_t offset_of(std::uint64_t chunk) const;
  /// Bytes a chunk takes in the file: whole clusters in a delta, the disk's end in a raw file.
  std::uint32_t length_of(std::uint64_t chunk) const;
  /// `data` begins at a chunk and ends at one's end; aligned to kAlignment in memory. Errors: exhausted,
  /// internal.
  Result<> write(std::uint64_t offset, std::span<const char> data);
  /// A chunk that was written. `out`: chunk_length() bytes at most.
  Result<> read(std::uint64_t chunk, std::uint32_t skip, std::span<char> out) const;
  /// fdatasync of all that write() returned for.
  Result<> sync();
  const std::filesystem::path& path() const { return path_; }

  static constexpr std::size_t kAlignment = 4096;

 private:
  FillTarget(std::filesystem::path path, const FillPlan& plan) : path_(std::move(path)), plan_(plan) {}
  Result<> open_files(int flags);
  Result<> make_clone(const Base& base);

  const std::filesystem::path path_;
  const FillPlan& plan_;  ///< outlives this
  sys::Fd file_;
  sys::Fd direct_;  ///< O_DIRECT; closed: not taken here
  std::atomic<bool> use_direct_{false};
  std::uint64_t data_start_ = 0;  ///< of a delta
};

/// Memory for O_DIRECT.
struct FreeAligned {
  void operator()(char* memory) const;
};
using AlignedBuffer = std::unique_ptr<char[], FreeAligned>;
/// Aborts if there is no memory, as new does.
AlignedBuffer make_aligned(std::size_t bytes);

}  // namespace educloud::nc
