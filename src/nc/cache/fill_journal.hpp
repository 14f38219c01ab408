#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "common/chunk/chunk_id.hpp"
#include "common/sys/file.hpp"
#include "nc/cache/fill_plan.hpp"

namespace educloud::nc {

/// What a fill that was interrupted may rely on. One file beside the unfinished disk, little endian:
///   offset 0  "EDJ1" · u32 header bytes (4096)
///          8  digest of the version, 32 · u64 plan fingerprint · u64 disk_bytes · u64 groups
///         64  u16 length, then the base as text ("" none, else "<imgid>/<n> <digest> <format>")
///       4064  SHA-256 of the bytes before
///       4096  one u64 per group: bit i set = chunk i is in the file, proven and synced
/// A bit is written only after fdatasync of the data, and bits are only ever set, so a torn write is
/// harmless.
class FillJournal {
 public:
  struct Header {
    chunk::ChunkId digest;
    std::uint64_t fingerprint = 0;
    std::uint64_t disk_bytes = 0;
    std::string base;
    bool operator==(const Header&) const = default;
  };

  /// A new one with no mark, durable (the folder too) when it returns. The disk file is synced by then.
  static Result<FillJournal> create(const std::filesystem::path& path, const Header& header);
  /// Only the header, to find out what the fill was about. Errors: not_found, corrupt.
  static Result<Header> read_header(const std::filesystem::path& path);
  /// Errors: not_found, corrupt, conflict (it is about something else).
  static Result<FillJournal> open(const std::filesystem::path& path, const Header& wanted);

  const ChunkBits& marked() const { return marked_; }
  /// Adds marks and syncs them. `bits`: a superset of marked(). The data was synced before.
  Result<> mark(const ChunkBits& bits);

 private:
  FillJournal(std::filesystem::path path, sys::Fd fd, ChunkBits marked)
      : path_(std::move(path)), fd_(std::move(fd)), marked_(std::move(marked)) {}

  std::filesystem::path path_;
  sys::Fd fd_;
  ChunkBits marked_;
};

}  // namespace educloud::nc
