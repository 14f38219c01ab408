#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace educloud::testing {

/// One thing that was done to a disk. Files and folders have numbers, since names change.
struct DiskOp {
  enum class Kind { write, cut, zero, sync, add_name, drop_name, rename };
  Kind kind = Kind::write;
  int file = 0;            ///< that is written, cut, synced, or gets the name
  std::uint64_t at = 0;    ///< write, zero: offset; cut: the new length
  std::uint64_t size = 0;  ///< zero: bytes
  std::string data = {};
  int folder = 0, to_folder = 0;
  std::string name = {}, to_name = {};
};

/// What lies on a disk: files by number, and names of files in folders.
struct DiskContent {
  std::map<int, std::string> files;
  std::map<int, std::map<std::string, int>> folders;  ///< by the folder's number; 0 is the root
};

struct Recording {
  DiskContent before;
  std::vector<DiskOp> ops;
};

/// Records everything this process does to the files below `root`: a test program that links this file has
/// its own write(2), fsync(2), rename(2) ... which the libraries (SQLite) call too. While it records, syncs
/// only are noted: the disk has nothing to do with it. What is there at the beginning counts as synced.
/// Not seen: memory maps (SQLite's -shm files), FICLONE (refused meanwhile). One at a time.
class DiskRecorder {
 public:
  explicit DiskRecorder(std::filesystem::path root);
  ~DiskRecorder();
  DiskRecorder(const DiskRecorder&) = delete;
  DiskRecorder& operator=(const DiskRecorder&) = delete;

  /// How much was done so far. What is promised to somebody at this moment must outlive a cut at it.
  /// Thread-safe.
  std::size_t position() const;
  /// Ends it.
  Recording stop();

  struct Impl;

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace educloud::testing
