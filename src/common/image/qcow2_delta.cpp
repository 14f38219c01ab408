#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <optional>

#include "common/image/formats.hpp"
#include "common/image/qcow2_layer.hpp"
#include "common/image/qcow2_tables.hpp"

namespace educloud::image {
namespace {

constexpr std::uint64_t kRefcountsPerBlock = kClusterBytes / 2;  // 16 bits each
constexpr std::uint32_t kHeaderBytes = 112;
constexpr std::uint32_t kBackingFormat = 0xe2792aca;
constexpr std::size_t kMaxBackingName = 1023;  // QEMU's own bound

using Buffer = std::vector<char>;

std::uint64_t divide_up(std::uint64_t a, std::uint64_t b) {
  return a / b + (a % b != 0 ? 1 : 0);
}

template <std::unsigned_integral T>
void put(Buffer& buffer, std::size_t at, T value) {
  for (std::size_t i = 0; i < sizeof value; ++i) {
    buffer[at + i] = static_cast<char>(value >> (8 * (sizeof value - 1 - i)));
  }
}

/// Numbers of L2 tables that are needed, rising.
std::vector<std::uint64_t> tables_of(const Qcow2Delta::Spec& spec) {
  std::vector<std::uint64_t> tables;
  for (const auto* list : {&spec.data, &spec.zeros}) {
    const auto begin = tables.size();
    for (const auto cluster : *list) {
      if (tables.size() == begin || tables.back() != cluster / kTableClusters) {
        tables.push_back(cluster / kTableClusters);
      }
    }
  }
  std::ranges::sort(tables);
  tables.erase(std::unique(tables.begin(), tables.end()), tables.end());
  return tables;
}

/// Where everything is, in clusters: header, refcount table, refcount blocks, L1, L2 tables, data.
struct Layout {
  std::uint64_t l1_entries = 0, refcount_table = 0, refcount_blocks = 0, l1 = 0, l2 = 0, data = 0;
  std::uint64_t end = 0;
  std::uint64_t refcount_table_clusters() const { return refcount_blocks - refcount_table; }
  std::uint64_t refcount_block_count() const { return l1 - refcount_blocks; }
};

Layout lay_out(const Qcow2Delta::Spec& spec, std::size_t tables) {
  Layout layout;
  layout.l1_entries = divide_up(spec.disk_bytes, kTableSpan);
  layout.refcount_table = 1;
  const auto l1_clusters = divide_up(layout.l1_entries * 8, kClusterBytes);
  const auto others = 1 + l1_clusters + tables + spec.data.size();
  // The blocks count themselves and their table too.
  std::uint64_t blocks = 1, table = 1;
  for (;;) {
    const auto need_blocks = divide_up(others + blocks + table, kRefcountsPerBlock);
    const auto need_table = divide_up(need_blocks * 8, kClusterBytes);
    if (need_blocks <= blocks && need_table <= table) break;
    blocks = need_blocks;
    table = need_table;
  }
  layout.refcount_blocks = layout.refcount_table + table;
  layout.l1 = layout.refcount_blocks + blocks;
  layout.l2 = layout.l1 + l1_clusters;
  layout.data = layout.l2 + tables;
  layout.end = layout.data + spec.data.size();
  return layout;
}

tl::unexpected<Error> bad_spec(const std::string& why) {
  return fail(ErrorCode::invalid_argument, "qcow2 delta refused: " + why);
}

Result<> check(const Qcow2Delta::Spec& spec) {
  if (spec.disk_bytes == 0 || spec.disk_bytes > kMaxLayerBytes) {
    return bad_spec("a disk of " + std::to_string(spec.disk_bytes) + " bytes is not 1 byte to 16 TiB");
  }
  const auto clusters = divide_up(spec.disk_bytes, kClusterBytes);
  for (const auto* list : {&spec.data, &spec.zeros}) {
    if (std::ranges::adjacent_find(*list, std::ranges::greater_equal{}) != list->end()) {
      return bad_spec("the list of clusters does not rise");
    }
    if (!list->empty() && list->back() >= clusters) {
      return bad_spec("cluster " + std::to_string(list->back()) + " is beyond the disk's " +
                      std::to_string(clusters));
    }
  }
  for (auto data = spec.data.begin(), zero = spec.zeros.begin();
       data != spec.data.end() && zero != spec.zeros.end();) {
    if (*data == *zero) return bad_spec("cluster " + std::to_string(*data) + " is both data and zeros");
    *data < *zero ? static_cast<void>(++data) : static_cast<void>(++zero);
  }
  if (spec.backing_file.size() > kMaxBackingName || spec.backing_file.find('\0') != std::string::npos) {
    return bad_spec("the backing file's name is longer than 1023 bytes or holds a zero byte");
  }
  if (!spec.backing_file.empty() && spec.backing_format != "raw" && spec.backing_format != "qcow2") {
    return bad_spec("backing format '" + printable(spec.backing_format) + "' is not raw or qcow2");
  }
  return {};
}

Buffer make_header(const Qcow2Delta::Spec& spec, const Layout& layout) {
  Buffer header(kClusterBytes);
  std::ranges::copy(kQcow2Magic, header.begin());
  put<std::uint32_t>(header, 4, 3);
  put<std::uint32_t>(header, 20, kClusterBits);
  put<std::uint64_t>(header, 24, divide_up(spec.disk_bytes, 512) * 512);
  put<std::uint32_t>(header, 36, static_cast<std::uint32_t>(layout.l1_entries));
  put<std::uint64_t>(header, 40, layout.l1 * kClusterBytes);
  put<std::uint64_t>(header, 48, layout.refcount_table * kClusterBytes);
  put<std::uint32_t>(header, 56, static_cast<std::uint32_t>(layout.refcount_table_clusters()));
  put<std::uint32_t>(header, 96, 4);  // refcounts of 2^4 bits
  put<std::uint32_t>(header, 100, kHeaderBytes);
  if (spec.backing_file.empty()) return header;
  put<std::uint32_t>(header, kHeaderBytes, kBackingFormat);
  put<std::uint32_t>(header, kHeaderBytes + 4, static_cast<std::uint32_t>(spec.backing_format.size()));
  std::ranges::copy(spec.backing_format, header.begin() + kHeaderBytes + 8);
  // "raw" and "qcow2" fill 8 bytes with their padding, the end of the extensions 8 more.
  constexpr std::uint32_t kNameAt = kHeaderBytes + 24;
  std::ranges::copy(spec.backing_file, header.begin() + kNameAt);
  put<std::uint64_t>(header, 8, kNameAt);
  put<std::uint32_t>(header, 16, static_cast<std::uint32_t>(spec.backing_file.size()));
  return header;
}

/// Writes the tables in the order of the file.
class Writer {
 public:
  Writer(int fd, const Qcow2Delta::Spec& spec, const Layout& layout, const std::vector<std::uint64_t>& tables)
      : fd_(fd), spec_(spec), layout_(layout), tables_(tables) {}

  Result<> write() {
    if (::ftruncate(fd_, static_cast<off_t>(layout_.end * kClusterBytes)) != 0) {
      return fail(errno_error("extend the file", errno));
    }
    if (auto ok = put_at(0, make_header(spec_, layout_)); !ok) return ok;
    if (auto ok = write_refcounts(); !ok) return ok;
    Buffer l1((layout_.l2 - layout_.l1) * kClusterBytes);
    for (std::size_t i = 0; i < tables_.size(); ++i) {
      put<std::uint64_t>(l1, tables_[i] * 8, ((layout_.l2 + i) * kClusterBytes) | kCopiedFlag);
    }
    if (auto ok = put_at(layout_.l1, l1); !ok) return ok;
    return write_l2();
  }

 private:
  Result<> put_at(std::uint64_t cluster, const Buffer& buffer) const {
    return sys::pwrite_all(fd_, {buffer.data(), buffer.size()}, cluster * kClusterBytes);
  }

  Result<> write_refcounts() const {
    Buffer table(layout_.refcount_table_clusters() * kClusterBytes);
    for (std::uint64_t i = 0; i < layout_.refcount_block_count(); ++i) {
      put<std::uint64_t>(table, i * 8, (layout_.refcount_blocks + i) * kClusterBytes);
    }
    if (auto ok = put_at(layout_.refcount_table, table); !ok) return ok;
    Buffer block(kClusterBytes);
    for (std::uint64_t i = 0; i < kRefcountsPerBlock; ++i) put<std::uint16_t>(block, i * 2, 1);
    for (std::uint64_t i = 0; i < layout_.refcount_block_count(); ++i) {
      const auto first = i * kRefcountsPerBlock;
      const auto used = std::min(kRefcountsPerBlock, layout_.end - std::min(layout_.end, first));
      std::fill(block.begin() + static_cast<std::ptrdiff_t>(used * 2), block.end(), '\0');
      if (auto ok = put_at(layout_.refcount_blocks + i, block); !ok) return ok;
    }
    return {};
  }

  Result<> write_l2() const {
    std::size_t data = 0, zero = 0;
    Buffer table(kClusterBytes);
    for (std::size_t i = 0; i < tables_.size(); ++i) {
      const auto first = tables_[i] * kTableClusters, end = first + kTableClusters;
      std::ranges::fill(table, '\0');
      for (; data < spec_.data.size() && spec_.data[data] < end; ++data) {
        put<std::uint64_t>(table, (spec_.data[data] - first) * 8,
                           ((layout_.data + data) * kClusterBytes) | kCopiedFlag);
      }
      for (; zero < spec_.zeros.size() && spec_.zeros[zero] < end; ++zero) {
        put<std::uint64_t>(table, (spec_.zeros[zero] - first) * 8, kZeroFlag);
      }
      if (auto ok = put_at(layout_.l2 + i, table); !ok) return ok;
    }
    return {};
  }

  int fd_;
  const Qcow2Delta::Spec& spec_;
  const Layout& layout_;
  const std::vector<std::uint64_t>& tables_;
};

}  // namespace

Result<Qcow2Delta> Qcow2Delta::create(const std::filesystem::path& file, const Spec& spec) {
  if (auto ok = check(spec); !ok) return fail(ok.error());
  const auto tables = tables_of(spec);
  const auto layout = lay_out(spec, tables.size());
  const sys::Fd fd(::open(file.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!fd.is_open()) {
    if (errno == EEXIST) return fail(ErrorCode::conflict, file.string() + " exists already");
    return fail(errno_error("create " + file.string(), errno));
  }
  if (auto ok = Writer(fd.get(), spec, layout, tables).write(); !ok) {
    ::unlink(file.c_str());
    return fail(ok.error(), file.string());
  }
  return Qcow2Delta(layout.data * kClusterBytes);
}

std::uint64_t Qcow2Delta::data_start_of(const Spec& spec) {
  return lay_out(spec, tables_of(spec).size()).data * kClusterBytes;
}

}  // namespace educloud::image
