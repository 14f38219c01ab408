#pragma once

#include <cstdint>
#include <filesystem>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/chunk/chunk_index.hpp"
#include "common/sys/file.hpp"

// Private to common/chunk: the files under packs/.
namespace educloud::chunk {

/// One file of frames.
struct Pack {
  std::uint32_t number = 0;
  std::uint64_t end = 0;                          ///< where the next frame would go
  std::uint64_t bytes = 0;                        ///< what it occupies on disk, about
  std::uint64_t used = 0;                         ///< tick of its last use
  std::shared_ptr<const sys::Fd> file = nullptr;  ///< null: not open
  std::list<std::uint32_t>::iterator open_place = {};

  /// Somebody outside reads from it.
  bool is_held() const { return file && file.use_count() > 1; }
};

/// All packs of a store; opens files when needed and keeps a bounded number of unused ones open. Not locked.
class PackFiles {
 public:
  static constexpr std::size_t kMaxIdleOpen = 128;

  /// `writable`: packs are opened for both; one descriptor each, so that is_held() knows all who read.
  PackFiles(std::filesystem::path directory, bool writable)
      : directory_(std::move(directory)), writable_(writable) {}

  static std::string name_of(std::uint32_t number) { return std::to_string(number) + ".pack"; }
  std::filesystem::path path_of(std::uint32_t number) const { return directory_ / name_of(number); }
  const std::filesystem::path& directory() const { return directory_; }

  /// Looks which files there are. Errors: internal, permission_denied.
  Result<> scan();
  /// Makes the next pack, empty and open for writing. Errors: exhausted, internal.
  Result<Pack*> create(bool durable);
  Pack* find(std::uint32_t number);
  std::map<std::uint32_t, Pack>& all() { return packs_; }
  /// One that scan() did not see, because somebody else made it since.
  Pack& adopt(std::uint32_t number);
  /// Errors: not_found, internal.
  Result<std::shared_ptr<const sys::Fd>> open(Pack& pack);
  /// Forgets it; the file stays. Who holds it open keeps reading.
  void drop(std::uint32_t number);
  /// Measures what it occupies now.
  Result<> measure(Pack& pack);
  /// Sum of what all occupy.
  std::uint64_t bytes() const;

 private:
  void close_idle();

  const std::filesystem::path directory_;
  const bool writable_;
  std::map<std::uint32_t, Pack> packs_;
  std::list<std::uint32_t> open_;  ///< the least recently opened first
  std::uint32_t next_ = 1;         ///< numbers are not used twice as long as this lives
};

/// Writes a frame at `offset`. Errors: exhausted (also for a limit on file sizes), internal.
Result<> write_frame(int fd, std::span<const char> header, std::span<const char> stored,
                     std::uint64_t offset);
/// Reads exactly out.size() bytes. Errors: corrupt (the file is shorter), internal.
Result<> read_exactly(int fd, std::span<char> out, std::uint64_t offset);

/// Gives the file system back what lies between the frames of a pack. Errors: internal.
class GapPuncher {
 public:
  explicit GapPuncher(int fd) : fd_(fd) {}
  /// The next frame, by place.
  Result<> keep(const Place& place);
  /// What is behind the last frame, too. `end`: of the pack.
  Result<> finish(std::uint64_t end);

 private:
  Result<> punch(std::uint64_t from, std::uint64_t to) const;
  const int fd_;
  std::uint64_t from_ = 0;
};

}  // namespace educloud::chunk
