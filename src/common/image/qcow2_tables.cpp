#include "common/image/qcow2_tables.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "common/image/formats.hpp"

namespace educloud::image {
namespace {

constexpr std::size_t kHeaderBytes = 104;
constexpr std::uint64_t kDirty = 1, kCorrupt = 2, kDataFile = 4, kCompressionType = 8, kExtendedL2 = 16;
/// All bits of an L1 entry but the offset and the copied flag, and those of an L2 entry.
constexpr std::uint64_t kReservedL1 = ~(kOffsetMask | kCopiedFlag);
constexpr std::uint64_t kReservedL2 = ~(kOffsetMask | kCopiedFlag | kCompressedFlag | kZeroFlag);

std::uint64_t load_be(const char* at) {
  std::uint64_t value = 0;
  std::memcpy(&value, at, sizeof value);
  return __builtin_bswap64(value);
}

}  // namespace

tl::unexpected<Error> LayerFile::refuse(ErrorCode code, const std::string& why) const {
  return fail(code, "disk layer " + name_ + ": " + why);
}

Result<std::unique_ptr<LayerFile>> LayerFile::open(const std::filesystem::path& path,
                                                   const std::string& format) {
  std::unique_ptr<LayerFile> file(new LayerFile());
  file->name_ = path.string();
  if (format != "raw" && format != "qcow2") {
    return file->refuse(ErrorCode::invalid_argument,
                        "format '" + printable(format) + "' is not raw or qcow2");
  }
  auto fd = sys::open_file(path, O_RDONLY);
  if (!fd) return fail(fd.error());
  file->fd_ = std::move(*fd);
  struct stat info {};
  if (::fstat(file->fd_.get(), &info) != 0) return fail(errno_error("stat " + file->name_, errno));
  if (!S_ISREG(info.st_mode)) return file->refuse(ErrorCode::invalid_argument, "is not an ordinary file");
  file->file_bytes_ = file->disk_bytes_ = static_cast<std::uint64_t>(info.st_size);
  file->raw_ = format == "raw";
  if (!file->raw_) {
    if (auto ok = file->read_header(); !ok) return fail(ok.error());
  }
  if (file->disk_bytes_ > kMaxLayerBytes) {
    return file->refuse(ErrorCode::invalid_argument,
                        "a disk of " + std::to_string(file->disk_bytes_) + " bytes is more than 16 TiB");
  }
  return file;
}

Result<> LayerFile::read_header() {
  std::array<char, kHeaderBytes> header{};
  if (file_bytes_ < 72) return refuse(ErrorCode::corrupt, "ends inside its qcow2 header");
  if (auto ok = read(0, header.data(), header.size()); !ok) return ok;
  const std::string_view head(header.data(), header.size());
  const auto u32 = [&](std::size_t at) { return static_cast<std::uint32_t>(big_endian(head, at, 4)); };
  const auto no = [this](const std::string& why) { return refuse(ErrorCode::invalid_argument, why); };
  if (!head.starts_with(kQcow2Magic)) return refuse(ErrorCode::corrupt, "has no qcow2 header");
  version_ = u32(4);
  if (version_ != 2 && version_ != 3)
    return no("qcow2 version " + std::to_string(version_) + " is not 2 or 3");
  if (u32(20) != kClusterBits) {
    return no("its clusters are not 64 KiB (cluster_bits " + std::to_string(u32(20)) +
              "): convert it with qemu-img convert -o cluster_size=64k");
  }
  if (u32(32) != 0) return no("is encrypted");
  if (u32(60) != 0) {
    return no("has " + std::to_string(u32(60)) +
              " internal snapshots: delete them with qemu-img snapshot -d");
  }
  const auto features = version_ == 3 ? big_endian(head, 72, 8) : 0;
  if ((features & kExtendedL2) != 0) return no("has extended L2 entries");
  if ((features & kDataFile) != 0) return no("has its data in another file");
  if ((features & kCorrupt) != 0)
    return refuse(ErrorCode::corrupt, "is marked corrupt: qemu-img check -r all");
  if ((features & kDirty) != 0) return no("is in use or was not closed: qemu-img check -r all");
  if ((features & ~kCompressionType) != 0) return no("has incompatible features that are not known here");
  disk_bytes_ = big_endian(head, 24, 8);
  if (disk_bytes_ > kMaxLayerBytes) return {};  // open() says so
  return read_l1(big_endian(head, 40, 8), u32(36));
}

Result<> LayerFile::read_l1(std::uint64_t offset, std::uint64_t entries) {
  const auto needed = (disk_bytes_ + kTableSpan - 1) / kTableSpan;  // at most 32768
  if (needed > entries) {
    return refuse(ErrorCode::corrupt, "a disk of " + std::to_string(disk_bytes_) + " bytes needs " +
                                          std::to_string(needed) + " L1 entries, the table has " +
                                          std::to_string(entries));
  }
  if (needed == 0) return {};
  if (offset == 0 || offset % kClusterBytes != 0 || offset > file_bytes_ ||
      needed * 8 > file_bytes_ - offset) {
    return refuse(ErrorCode::corrupt,
                  "its L1 table at " + std::to_string(offset) + " is not inside the file");
  }
  std::vector<char> bytes(needed * 8);
  if (auto ok = read(offset, bytes.data(), bytes.size()); !ok) return ok;
  l1_.resize(needed);
  for (std::size_t i = 0; i < needed; ++i) {
    const auto entry = load_be(bytes.data() + 8 * i);
    l1_[i] = entry & kOffsetMask;
    if (l1_[i] == 0 && (entry & kReservedL1) == 0) continue;
    const bool good = (entry & kReservedL1) == 0 && l1_[i] % kClusterBytes == 0 && l1_[i] <= file_bytes_ &&
                      kClusterBytes <= file_bytes_ - l1_[i];
    if (!good) {
      return refuse(ErrorCode::corrupt, "L1 entry " + std::to_string(i) + " (offset " +
                                            std::to_string(l1_[i]) + ") is not a table inside the file");
    }
  }
  return {};
}

Result<> LayerFile::read(std::uint64_t offset, char* out, std::size_t length) const {
  const auto inside = offset >= file_bytes_
                          ? 0
                          : static_cast<std::size_t>(std::min<std::uint64_t>(length, file_bytes_ - offset));
  std::size_t have = 0;
  while (have < inside) {
    const ssize_t got = ::pread(fd_.get(), out + have, inside - have, static_cast<off_t>(offset + have));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(errno_error("read " + name_, errno));
    if (got == 0) return refuse(ErrorCode::corrupt, "became shorter while it was read");
    have += static_cast<std::size_t>(got);
  }
  std::memset(out + inside, 0, length - inside);
  return {};
}

Result<std::shared_ptr<const Table>> LayerFile::table(std::uint64_t index) const {
  if (raw_) return map_raw(index);
  if (index >= l1_.size() || l1_[index] == 0) return std::shared_ptr<const Table>();
  {
    const std::lock_guard lock(mutex_);
    for (auto& one : cache_) {
      if (one.table == nullptr || one.index != index) continue;
      one.used = ++clock_;
      return one.table;
    }
  }
  // Not under the lock: two threads may read the same table, which costs less than to wait for a disk.
  auto loaded = load_table(index);
  if (!loaded) return loaded;
  const std::lock_guard lock(mutex_);
  auto& oldest = *std::ranges::min_element(cache_, {}, &Cached::used);
  oldest = Cached{index, ++clock_, *loaded};
  return loaded;
}

Result<Entry> LayerFile::check_entry(std::uint64_t entry, std::uint64_t cluster) const {
  const auto name = "cluster " + std::to_string(cluster);
  if ((entry & kCompressedFlag) != 0) {
    return refuse(ErrorCode::invalid_argument, name + " is compressed: convert it with qemu-img convert");
  }
  if ((entry & kReservedL2) != 0 || (version_ == 2 && (entry & kZeroFlag) != 0)) {
    return refuse(ErrorCode::corrupt, name + " has reserved bits set");
  }
  const auto offset = entry & kOffsetMask;
  // QEMU leaves a file short whose last cluster was not written to its end.
  if (offset % kClusterBytes != 0 || offset >= file_bytes_) {
    return refuse(ErrorCode::corrupt,
                  name + " at offset " + std::to_string(offset) + " is not inside the file");
  }
  if ((entry & kZeroFlag) != 0) return Entry::zero();
  return offset == 0 ? Entry() : Entry::data(offset);
}

Result<std::shared_ptr<const Table>> LayerFile::load_table(std::uint64_t index) const {
  std::vector<char> bytes(kClusterBytes);
  if (auto ok = read(l1_[index], bytes.data(), bytes.size()); !ok) return fail(ok.error());
  auto table = std::make_shared<Table>();
  const auto first = index * kTableClusters;
  const auto count = std::min(kTableClusters, clusters() - first);
  for (std::uint64_t i = 0; i < count; ++i) {
    const auto raw = load_be(bytes.data() + 8 * i);
    if (raw == 0) continue;
    const auto entry = check_entry(raw, first + i);
    if (!entry) return fail(entry.error());
    (*table)[i] = *entry;
  }
  return table;
}

Result<std::shared_ptr<const Table>> LayerFile::map_raw(std::uint64_t index) const {
  const auto start = index * kTableSpan;
  const auto end = std::min(disk_bytes_, start + kTableSpan);
  std::shared_ptr<Table> table;
  for (auto at = start; at < end;) {
    const off_t data = ::lseek(fd_.get(), static_cast<off_t>(at), SEEK_DATA);
    if (data < 0 && errno == ENXIO) break;
    if (data < 0) return fail(errno_error("seek data in " + name_, errno));
    const off_t hole = ::lseek(fd_.get(), data, SEEK_HOLE);
    if (hole < 0) return fail(errno_error("seek hole in " + name_, errno));
    if (static_cast<std::uint64_t>(data) >= end) break;
    if (table == nullptr) table = std::make_shared<Table>();
    const auto to = std::min(end, static_cast<std::uint64_t>(hole));
    for (auto one = static_cast<std::uint64_t>(data) / kClusterBytes; one * kClusterBytes < to; ++one) {
      (*table)[one - index * kTableClusters] = Entry::data(one * kClusterBytes);
    }
    at = to;
  }
  return table;
}

bool LayerFile::is_raw_hole(std::uint64_t offset, std::uint64_t length) const {
  const off_t data = ::lseek(fd_.get(), static_cast<off_t>(offset), SEEK_DATA);
  if (data < 0) return errno == ENXIO;
  return static_cast<std::uint64_t>(data) >= offset + length;
}

}  // namespace educloud::image
