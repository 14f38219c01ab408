#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "common/base/result.hpp"
#include "common/sys/file.hpp"

// Private to common/image: one file of a LayeredDisk.
namespace educloud::image {

inline constexpr std::uint32_t kClusterBits = 16;
inline constexpr std::uint64_t kClusterBytes = std::uint64_t{1} << kClusterBits;
/// Clusters that one L2 table covers: 512 MiB of disk.
inline constexpr std::uint64_t kTableClusters = kClusterBytes / 8;
inline constexpr std::uint64_t kTableSpan = kTableClusters * kClusterBytes;
/// Largest disk that is read or made.
inline constexpr std::uint64_t kMaxLayerBytes = std::uint64_t{16} << 40;

/// On disk: the owner of this cluster is the only one; the rest of an entry is its offset.
inline constexpr std::uint64_t kCopiedFlag = std::uint64_t{1} << 63;
inline constexpr std::uint64_t kCompressedFlag = std::uint64_t{1} << 62;
inline constexpr std::uint64_t kZeroFlag = 1;
inline constexpr std::uint64_t kOffsetMask = 0x00ff'ffff'ffff'fe00;

/// What a layer says about one cluster: absent, zero, or data at an offset, which is a multiple of 64 KiB.
class Entry {
 public:
  Entry() = default;
  static Entry zero() { return Entry(1); }
  static Entry data(std::uint64_t offset) { return Entry(offset | 2); }
  bool is_absent() const { return bits_ == 0; }
  bool is_data() const { return (bits_ & 2) != 0; }
  std::uint64_t offset() const { return bits_ & ~std::uint64_t{3}; }

 private:
  explicit Entry(std::uint64_t bits) : bits_(bits) {}
  std::uint64_t bits_ = 0;
};
using Table = std::array<Entry, kTableClusters>;

/// One file: raw, or a qcow2 whose L1 table is in memory and whose L2 tables are read when they are needed.
class LayerFile {
 public:
  /// Errors: as LayeredDisk::open.
  static Result<std::unique_ptr<LayerFile>> open(const std::filesystem::path& path,
                                                 const std::string& format);

  bool is_raw() const { return raw_; }
  std::uint64_t disk_bytes() const { return disk_bytes_; }
  std::uint64_t clusters() const { return (disk_bytes_ + kClusterBytes - 1) / kClusterBytes; }

  /// What the file says about clusters [index * kTableClusters, ...); nullptr: all absent. Entries beyond the
  /// disk are absent. A raw file's come from SEEK_DATA. Errors: corrupt, invalid_argument, internal.
  Result<std::shared_ptr<const Table>> table(std::uint64_t index) const;
  /// Bytes of the file; zeros beyond its end. Errors: internal, corrupt (the file became shorter).
  Result<> read(std::uint64_t offset, char* out, std::size_t length) const;
  /// Raw only: true if the file has no data in [offset, offset + length).
  bool is_raw_hole(std::uint64_t offset, std::uint64_t length) const;

 private:
  struct Cached {
    std::uint64_t index = 0, used = 0;
    std::shared_ptr<const Table> table;
  };

  LayerFile() = default;
  Result<> read_header();
  Result<> read_l1(std::uint64_t offset, std::uint64_t entries);
  Result<std::shared_ptr<const Table>> load_table(std::uint64_t index) const;
  Result<std::shared_ptr<const Table>> map_raw(std::uint64_t index) const;
  Result<Entry> check_entry(std::uint64_t entry, std::uint64_t cluster) const;
  tl::unexpected<Error> refuse(ErrorCode code, const std::string& why) const;

  std::string name_;
  sys::Fd fd_;
  bool raw_ = false;
  std::uint32_t version_ = 0;
  std::uint64_t file_bytes_ = 0, disk_bytes_ = 0;
  std::vector<std::uint64_t> l1_;  ///< offsets of L2 tables, checked; 0: none

  static constexpr std::size_t kCachedTables = 32;
  mutable std::mutex mutex_;
  mutable std::array<Cached, kCachedTables> cache_;
  mutable std::uint64_t clock_ = 0;
};

}  // namespace educloud::image
