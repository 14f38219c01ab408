// The allow-list for qcow2 (docs/interop/qcow2.txt of QEMU, versions 2 and 3). What is not known to be
// harmless is refused: each field below has been somebody's way to read a file of the host
// (CVE-2014-0134, 2015-5163, 2022-47951, 2024-32498).
#include "common/image/formats.hpp"

namespace educloud::image {
namespace {

constexpr std::size_t kV2HeaderBytes = 72;
constexpr std::size_t kV3HeaderBytes = 104;
constexpr std::uint64_t kMaxL1Bytes = 32 << 20;       // QEMU's own bound
constexpr std::uint64_t kMaxRefcountBytes = 8 << 20;  // QEMU's own bound
constexpr std::size_t kMaxBackingName = 1023;
constexpr int kMaxExtensions = 64;

constexpr std::uint64_t kDirty = 1, kCorrupt = 2, kDataFile = 4, kCompressionType = 8, kExtendedL2 = 16;
constexpr std::uint64_t kKnownFeatures = kDirty | kCorrupt | kDataFile | kCompressionType | kExtendedL2;

enum Extension : std::uint32_t {
  end_of_list = 0,
  backing_format = 0xe2792aca,
  feature_names = 0x6803f857,
  bitmaps = 0x23852875,
  encryption_header = 0x0537be77,
  data_file_name = 0x44415441,
};

constexpr std::string_view kFlatten = "; flatten it first: qemu-img convert -O qcow2 in.qcow2 out.qcow2";

/// The fields, in the order of the file.
struct Fields {
  std::uint32_t version, backing_size, cluster_bits, crypt_method, l1_size, refcount_clusters, snapshots;
  std::uint64_t backing_offset, size, l1_offset, refcount_offset;
  std::uint64_t incompatible = 0;
  std::uint32_t refcount_order = 4, header_bytes = kV2HeaderBytes, compression = 0;
  std::string backing_file, backing_format, data_file;  // names, not trusted
  bool has_backing_format = false, has_data_file = false, has_encryption_header = false;

  std::uint64_t cluster() const { return std::uint64_t{1} << cluster_bits; }
};

tl::unexpected<Error> refuse(const std::string& why) {
  return fail(ErrorCode::invalid_argument, "qcow2 image refused: " + why);
}

std::string hex(std::uint64_t value) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  do {
    text.insert(text.begin(), kDigits[value & 15]);
    value >>= 4;
  } while (value != 0);
  return "0x" + text;
}

Result<Fields> read_fields(std::string_view head) {
  const auto u32 = [&](std::size_t at) { return static_cast<std::uint32_t>(big_endian(head, at, 4)); };
  const auto u64 = [&](std::size_t at) { return big_endian(head, at, 8); };
  if (head.size() < kV2HeaderBytes) return refuse("the file ends inside its header: upload it again");
  Fields f{};
  f.version = u32(4);
  if (f.version != 2 && f.version != 3) {
    return refuse("version " + std::to_string(f.version) + " is not 2 or 3" + std::string(kFlatten));
  }
  f.backing_offset = u64(8);
  f.backing_size = u32(16);
  f.cluster_bits = u32(20);
  f.size = u64(24);
  f.crypt_method = u32(32);
  f.l1_size = u32(36);
  f.l1_offset = u64(40);
  f.refcount_offset = u64(48);
  f.refcount_clusters = u32(56);
  f.snapshots = u32(60);
  if (f.cluster_bits < 9 || f.cluster_bits > 21) {
    return refuse("cluster_bits " + std::to_string(f.cluster_bits) + " is not 9..21");
  }
  f.header_bytes = kV2HeaderBytes;
  f.refcount_order = 4;
  if (f.version == 2) return f;
  if (head.size() < kV3HeaderBytes) return refuse("the file ends inside its header: upload it again");
  f.incompatible = u64(72);
  f.refcount_order = u32(96);
  f.header_bytes = u32(100);
  if (f.header_bytes < kV3HeaderBytes || f.header_bytes % 8 != 0 || f.header_bytes > f.cluster()) {
    return refuse("header length " + std::to_string(f.header_bytes) +
                  " is not a multiple of 8 from 104 to a cluster");
  }
  if (f.header_bytes > kV3HeaderBytes && head.size() > kV3HeaderBytes) {
    f.compression = static_cast<unsigned char>(head[kV3HeaderBytes]);
  }
  return f;
}

/// Walks the header extensions in `cluster`, the file's first cluster.
Result<> read_extensions(std::string_view cluster, Fields& f) {
  std::size_t at = f.header_bytes;
  // They end where the backing file's name begins, if that is in this cluster.
  const std::size_t end =
      f.backing_offset != 0 ? std::min<std::uint64_t>(f.backing_offset, cluster.size()) : cluster.size();
  for (int count = 0; at + 8 <= end; ++count) {
    if (count == kMaxExtensions)
      return refuse("more than " + std::to_string(kMaxExtensions) + " header extensions");
    const auto type = static_cast<std::uint32_t>(big_endian(cluster, at, 4));
    const std::uint64_t length = big_endian(cluster, at + 4, 4);
    at += 8;
    if (type == end_of_list) return {};
    if (length > end - at)
      return refuse("header extension " + hex(type) + " reaches out of the first cluster");
    const auto data = cluster.substr(at, length);
    switch (type) {
      case backing_format:
        f.has_backing_format = true;
        f.backing_format = data;
        break;
      case data_file_name:
        f.has_data_file = true;
        f.data_file = data;
        break;
      case encryption_header: f.has_encryption_header = true; break;
      case feature_names:
      case bitmaps: break;
      default: return refuse("unknown header extension " + hex(type) + std::string(kFlatten));
    }
    at += std::min<std::uint64_t>((length + 7) / 8 * 8, end - at);
  }
  return {};
}

Result<> check_references(const Fields& f, const std::optional<ExpectedBacking>& expected) {
  if (f.has_data_file || (f.incompatible & kDataFile) != 0) {
    return refuse("its data is in another file, '" + printable(f.data_file) + "'" + std::string(kFlatten));
  }
  if (!expected) {
    if (f.backing_offset != 0 || f.backing_size != 0) {
      return refuse("it needs the backing file '" + printable(f.backing_file) + "'" + std::string(kFlatten));
    }
    if (f.has_backing_format)
      return refuse("it names a backing format without a backing file" + std::string(kFlatten));
    return {};
  }
  if (f.backing_file != expected->file) {
    return refuse("overlay has the backing file '" + printable(f.backing_file) + "', not '" + expected->file +
                  "'");
  }
  // Without it QEMU would guess the format from the content, which the guest wrote.
  if (f.backing_format != expected->format) {
    return refuse("overlay says its backing file is '" + printable(f.backing_format) + "', not '" +
                  expected->format + "'");
  }
  return {};
}

Result<> check_features(const Fields& f) {
  if (f.crypt_method != 0 || f.has_encryption_header) {
    return refuse("it is encrypted (method " + std::to_string(f.crypt_method) +
                  "); decrypt it first with qemu-img convert and its secret");
  }
  if (const auto unknown = f.incompatible & ~kKnownFeatures; unknown != 0) {
    return refuse("unknown incompatible features " + hex(unknown) + std::string(kFlatten));
  }
  if ((f.incompatible & (kDirty | kCorrupt)) != 0) {
    return refuse(std::string("it is marked ") +
                  ((f.incompatible & kCorrupt) != 0 ? "corrupt" : "dirty (not shut down)") +
                  "; repair it first: qemu-img check -r all in.qcow2");
  }
  if (f.snapshots != 0) {
    return refuse("it holds " + std::to_string(f.snapshots) + " internal snapshots" + std::string(kFlatten));
  }
  const bool has_type = (f.incompatible & kCompressionType) != 0;
  if (f.compression > 1 || has_type != (f.compression != 0)) {
    return refuse("compression type " + std::to_string(f.compression) + " is not zlib or zstd" +
                  std::string(kFlatten));
  }
  if ((f.incompatible & kExtendedL2) != 0 && f.cluster_bits < 14) {
    return refuse("extended L2 entries need cluster_bits of at least 14");
  }
  if (f.refcount_order > 6)
    return refuse("refcount_order " + std::to_string(f.refcount_order) + " is above 6");
  return {};
}

Result<> check_tables(const Fields& f, const Source& source) {
  if (f.size == 0) return refuse("its disk has 0 bytes");
  const auto aligned = [&](std::uint64_t offset) { return offset != 0 && offset % f.cluster() == 0; };
  const auto l1_bytes = std::uint64_t{f.l1_size} * 8;
  if (l1_bytes > kMaxL1Bytes)
    return refuse("L1 table of " + std::to_string(f.l1_size) + " entries is too large");
  if (!aligned(f.l1_offset) || !source.holds(f.l1_offset, l1_bytes)) {
    return refuse("the L1 table at " + hex(f.l1_offset) +
                  " is not inside the file: it is cut or damaged, upload it again");
  }
  const std::uint64_t entry_bytes = (f.incompatible & kExtendedL2) != 0 ? 16 : 8;
  // At most 2^21 * 2^18 bytes: no overflow.
  const auto covered_by_l1_entry = f.cluster() * (f.cluster() / entry_bytes);
  const auto needed = f.size / covered_by_l1_entry + (f.size % covered_by_l1_entry != 0 ? 1 : 0);
  if (needed > f.l1_size) {
    return refuse("a disk of " + std::to_string(f.size) + " bytes needs " + std::to_string(needed) +
                  " L1 entries, the table has " + std::to_string(f.l1_size));
  }
  const auto refcount_bytes = std::uint64_t{f.refcount_clusters} << f.cluster_bits;
  if (refcount_bytes == 0 || refcount_bytes > kMaxRefcountBytes) {
    return refuse("refcount table of " + std::to_string(f.refcount_clusters) +
                  " clusters is empty or too large");
  }
  if (!aligned(f.refcount_offset) || !source.holds(f.refcount_offset, refcount_bytes)) {
    return refuse("the refcount table at " + hex(f.refcount_offset) +
                  " is not inside the file: it is cut or damaged, upload it again");
  }
  return {};
}

}  // namespace

Result<ImageHeader> read_qcow2(const Source& source, const InspectLimits& limits,
                               const std::optional<ExpectedBacking>& backing) {
  auto head = source.read(0, 512);
  if (!head) return fail(head.error());
  if (!head->starts_with(kQcow2Magic)) return refuse("it does not begin with the qcow2 magic number");
  auto fields = read_fields(*head);
  if (!fields) return fail(fields.error());
  auto cluster = source.read(0, fields->cluster());
  if (!cluster) return fail(cluster.error());
  if (fields->backing_offset != 0 && fields->backing_offset < cluster->size()) {
    fields->backing_file =
        cluster->substr(fields->backing_offset, std::min<std::size_t>(fields->backing_size, kMaxBackingName));
  }
  if (auto ok = read_extensions(*cluster, *fields); !ok) return fail(ok.error());
  if (auto ok = check_references(*fields, backing); !ok) return fail(ok.error());
  if (auto ok = check_features(*fields); !ok) return fail(ok.error());
  if (fields->size > limits.max_virtual_bytes) {
    return fail(ErrorCode::too_large, "the disk in the image has " + std::to_string(fields->size) +
                                          " bytes, more than the limit of " +
                                          std::to_string(limits.max_virtual_bytes));
  }
  if (auto ok = check_tables(*fields, source); !ok) return fail(ok.error());
  ImageHeader header;
  header.format = Format::qcow2;
  header.virtual_size_bytes = fields->size;
  header.version = static_cast<int>(fields->version);
  header.cluster_bits = static_cast<int>(fields->cluster_bits);
  header.extended_l2 = (fields->incompatible & kExtendedL2) != 0;
  header.compression = fields->compression == 1 ? "zstd" : "zlib";
  return header;
}

}  // namespace educloud::image
