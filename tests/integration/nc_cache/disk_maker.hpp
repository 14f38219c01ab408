#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <random>
#include <string>

#include "common/chunk/manifest.hpp"
#include "common/sys/file.hpp"

namespace educloud::nc {

inline constexpr std::uint64_t kChunk = chunk::kChunkBytes;
inline constexpr std::uint64_t kMiB = 1 << 20;

/// Content of one chunk: every other kind packs well, the rest is noise.
inline std::string chunk_content(std::uint64_t seed, std::size_t size) {
  std::mt19937_64 random(seed * 7919 + 1);
  std::string bytes(size, '\0');
  if (seed % 2 == 0) {
    std::size_t at = 0;
    for (; at + 8 <= size; at += 8) {
      const auto value = random();
      std::memcpy(bytes.data() + at, &value, 8);
    }
    for (; at < size; ++at) bytes[at] = static_cast<char>(random() | 1);
    return bytes;
  }
  for (std::size_t at = 0; at < size; at += 64) {
    const auto word = std::to_string(random() % 4096) + " plain words of a log file, again and again, ";
    bytes.replace(at, std::min(word.size(), size - at), word, 0, std::min(word.size(), size - at));
  }
  bytes.resize(size);
  return bytes;
}

/// A sparse raw disk.
class DiskFile {
 public:
  DiskFile(std::filesystem::path path, std::uint64_t bytes) : path_(std::move(path)), bytes_(bytes) {
    fd_ = sys::Fd(::open(path_.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    EXPECT_EQ(::ftruncate(fd_.get(), static_cast<off_t>(bytes)), 0);
  }
  static DiskFile reopen(const std::filesystem::path& path, std::uint64_t bytes) {
    DiskFile disk;
    disk.path_ = path;
    disk.bytes_ = bytes;
    disk.fd_ = sys::Fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    return disk;
  }
  /// Fills `share` percent of the chunks, beginning with chunk `first`, runs of up to 64.
  void fill(std::uint64_t seed, int percent) {
    std::mt19937_64 random(seed);
    for (std::uint64_t at = 0; at < chunk::chunk_count(bytes_);) {
      const auto run = 1 + random() % 64;
      const bool data = static_cast<int>(random() % 100) < percent;
      for (std::uint64_t i = 0; i < run && at < chunk::chunk_count(bytes_); ++i, ++at) {
        if (data) put(at, seed * 1'000'003 + at);
      }
    }
  }
  void put(std::uint64_t chunk, std::uint64_t seed) {
    const auto content = chunk_content(seed, chunk::chunk_length(bytes_, chunk));
    EXPECT_TRUE(sys::pwrite_all(fd_.get(), content, chunk * kChunk));
  }
  void punch(std::uint64_t chunk) {
    EXPECT_EQ(::fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                          static_cast<off_t>(chunk * kChunk), kChunk),
              0);
  }
  /// The same with changes: `percent` of the chunks get other content, a few become holes.
  void change(std::uint64_t seed, int percent) {
    std::mt19937_64 random(seed);
    for (std::uint64_t at = 0; at + 1 < chunk::chunk_count(bytes_); ++at) {
      const auto dice = static_cast<int>(random() % 1000);
      if (dice < percent * 10) put(at, seed * 1'000'033 + at);
      if (dice == 999) punch(at);
    }
  }
  const std::filesystem::path& path() const { return path_; }
  std::uint64_t bytes() const { return bytes_; }

 private:
  DiskFile() = default;
  std::filesystem::path path_;
  std::uint64_t bytes_ = 0;
  sys::Fd fd_;
};

}  // namespace educloud::nc
