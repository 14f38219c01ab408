#pragma once

#include <cstdint>
#include <filesystem>
#include <span>

#include "common/sys/file.hpp"

// Private to common/transfer: how received bytes get into a file.
namespace educloud::transfer {

/// Appends to a file whose length says how much of it is there. Aligned 4 KiB blocks of zeros become holes.
/// Not thread-safe.
class SparseWriter {
 public:
  /// Opens (makes) the file and continues at its length. Errors: as sys::open_file.
  static Result<SparseWriter> open(const std::filesystem::path& path);

  /// Errors: exhausted (no space), internal. What was written before the error counts (see `offset`).
  Result<> append(std::span<const char> data);
  /// Everything appended is on disk and the file's length is `offset` when this returns.
  Result<> sync();
  std::uint64_t offset() const { return offset_; }

 private:
  SparseWriter(sys::Fd fd, std::filesystem::path path, std::uint64_t offset)
      : fd_(std::move(fd)), path_(std::move(path)), offset_(offset), file_size_(offset), flushed_(offset) {}
  Result<> write_run(std::span<const char> data);

  sys::Fd fd_;
  std::filesystem::path path_;
  std::uint64_t offset_ = 0;     ///< bytes appended, holes included
  std::uint64_t file_size_ = 0;  ///< length of the file; less than offset_ while the end is a hole
  std::uint64_t flushed_ = 0;    ///< up to here the kernel was told to write
};

}  // namespace educloud::transfer
