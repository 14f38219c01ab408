#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "common/base/result.hpp"

namespace educloud::sys {

/// An open file descriptor that closes itself.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(other.release()) {}
  Fd& operator=(Fd&& other) noexcept;
  ~Fd();
  int get() const { return fd_; }
  bool is_open() const { return fd_ >= 0; }
  /// Gives the descriptor away.
  int release();
  void close();

 private:
  int fd_ = -1;
};

/// open(2) with O_CLOEXEC. Errors name the path.
Result<Fd> open_file(const std::filesystem::path& path, int flags, unsigned mode = 0600);

/// Opens `relative` below the directory `root` with openat2(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS):
/// no "..", no link can lead out. Errors: invalid_argument if it would leave `root`.
Result<Fd> open_beneath(const std::filesystem::path& root, std::string_view relative, int flags,
                        unsigned mode = 0600);

/// Whole file, at most `limit` bytes. Errors: too_large, not_found.
Result<std::string> read_file(const std::filesystem::path& path, std::size_t limit = 1 << 20);

/// A secret: read_file, trailing newline cut; refuses a file that others may read (mode & 077).
Result<std::string> read_secret_file(const std::filesystem::path& path);

/// Written beside, fsynced, renamed over, directory fsynced: readers see the old or the new, never half.
Result<> write_file_atomically(const std::filesystem::path& path, std::string_view content,
                               unsigned mode = 0644);

/// mkdir -p, then fsync of the parents it made.
Result<> make_directories(const std::filesystem::path& path, unsigned mode = 0755);

/// fsync of a file or directory by path.
Result<> sync_path(const std::filesystem::path& path);

/// write(2) until all is written.
Result<> write_all(int fd, std::string_view data);
/// pwrite(2) until all is written.
Result<> pwrite_all(int fd, std::string_view data, std::uint64_t offset);

struct DiskSpace {
  std::uint64_t total_bytes = 0;
  std::uint64_t free_bytes = 0;  ///< for unprivileged writers
};
Result<DiskSpace> disk_space(const std::filesystem::path& path);

}  // namespace educloud::sys
