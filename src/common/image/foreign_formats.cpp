// What we take only through the converter (vdi, vmdk, vhdx) and what we know but refuse. The point here
// is that the file stands alone: qemu-img follows names that it finds in these headers.
#include "common/image/formats.hpp"

namespace educloud::image {
namespace {

tl::unexpected<Error> refuse(std::string_view format, const std::string& why) {
  return fail(ErrorCode::invalid_argument, std::string(format) + " image refused: " + why);
}

std::string lower(std::string_view text) {
  std::string copy(text);
  for (char& c : copy) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return copy;
}

/// The value of `key=` in a VMDK descriptor, without quotes; nullopt if the key is not there.
std::optional<std::string> descriptor_value(std::string_view descriptor, std::string_view key) {
  const auto text = lower(descriptor);
  const auto at = text.find(std::string(key) + "=");
  if (at == std::string::npos) return std::nullopt;
  auto rest = descriptor.substr(at + key.size() + 1);
  rest = rest.substr(0, rest.find_first_of(std::string_view("\r\n\0", 3)));
  while (rest.starts_with('"') || rest.starts_with(' ')) rest.remove_prefix(1);
  while (rest.ends_with('"') || rest.ends_with(' ')) rest.remove_suffix(1);
  return std::string(rest);
}

constexpr std::string_view kVmdkRemedy =
    "; make a single file of it first: qemu-img convert -O qcow2 in.vmdk out.qcow2";

/// Region and metadata tables of VHDX ([MS-VHDX] 2.2.3 and 2.6): fixed places, little-endian.
constexpr std::uint64_t kVhdxRegionTable = 192 * 1024;
constexpr std::size_t kVhdxTableBytes = 64 * 1024;
constexpr std::uint32_t kMaxRegions = 2047;

constexpr std::string_view kMetadataRegion("\x06\xa2\x7c\x8b\x90\x47\x9a\x4b\xb8\xfe\x57\x5f\x05\x0f\x88\x6e",
                                           16);
constexpr std::string_view kFileParameters("\x37\x67\xa1\xca\x36\xfa\x43\x4d\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b",
                                           16);
constexpr std::string_view kVirtualDiskSize(
    "\x24\x42\xa5\x2f\x1b\xcd\x76\x48\xb2\x11\x5d\xbe\xd8\x3b\xf4\xb8", 16);

/// Offset of the entry of 32 bytes that begins with `guid`; nullopt if the table has none.
std::optional<std::size_t> find_entry(std::string_view table, std::size_t first, std::uint64_t count,
                                      std::string_view guid) {
  for (std::uint64_t i = 0; i < count && first + 32 <= table.size(); ++i, first += 32) {
    if (table.substr(first, 16) == guid) return first;
  }
  return std::nullopt;
}

}  // namespace

Result<ImageHeader> read_vdi(const Source& source) {
  auto head = source.read(0, 512);
  if (!head) return fail(head.error());
  if (head->size() < 512) return refuse("vdi", "the file ends inside its header: upload it again");
  const auto version = little_endian(*head, 0x44, 4);
  if (version != 0x00010001) return refuse("vdi", "header version is not 1.1");
  const auto type = little_endian(*head, 0x4c, 4);
  const bool has_link = head->substr(0x1a8, 32).find_first_not_of('\0') != std::string::npos;
  if ((type != 1 && type != 2) || has_link) {
    return refuse(
        "vdi", "it is a difference to another image; merge it first: VBoxManage clonemedium in.vdi out.vdi");
  }
  ImageHeader header;
  header.format = Format::vdi;
  header.virtual_size_bytes = little_endian(*head, 0x170, 8);
  if (header.virtual_size_bytes == 0) return refuse("vdi", "its disk has 0 bytes");
  return header;
}

Result<ImageHeader> read_vmdk(const Source& source) {
  auto head = source.read(0, 512);
  if (!head) return fail(head.error());
  if (head->size() < 512) return refuse("vmdk", "the file ends inside its header: upload it again");
  const auto capacity = little_endian(*head, 12, 8);
  const auto descriptor_sector = little_endian(*head, 28, 8);
  // With capacity 0 QEMU takes the descriptor for a list of other files to open.
  if (capacity == 0) return refuse("vmdk", "its capacity is 0" + std::string(kVmdkRemedy));
  // QEMU looks for the parent at sector 1, wherever the header says the descriptor is.
  if (descriptor_sector != 1) {
    return refuse("vmdk", "its descriptor is at sector " + std::to_string(descriptor_sector) + ", not 1" +
                              std::string(kVmdkRemedy));
  }
  auto descriptor = source.read(512, 20 * 512);
  if (!descriptor) return fail(descriptor.error());
  if (auto parent = descriptor_value(*descriptor, "parentfilenamehint")) {
    return refuse("vmdk", "it needs the parent file '" + printable(*parent) + "'" + std::string(kVmdkRemedy));
  }
  const auto parent_id = descriptor_value(*descriptor, "parentcid");
  if (parent_id && lower(*parent_id) != "ffffffff") {
    return refuse("vmdk", "it is a difference to another image" + std::string(kVmdkRemedy));
  }
  const auto type = descriptor_value(*descriptor, "createtype").value_or("");
  if (lower(type) != "monolithicsparse" && lower(type) != "streamoptimized") {
    return refuse("vmdk", "its type is '" + printable(type) +
                              "', only monolithicSparse and streamOptimized stand alone" +
                              std::string(kVmdkRemedy));
  }
  if (capacity > (std::uint64_t{1} << 54)) return refuse("vmdk", "its capacity is out of range");
  ImageHeader header;
  header.format = Format::vmdk;
  header.virtual_size_bytes = capacity * 512;
  return header;
}

Result<ImageHeader> read_vhdx(const Source& source) {
  const auto damaged = [] {
    return refuse("vhdx", "its region or metadata table is damaged: upload it again");
  };
  auto regions = source.read(kVhdxRegionTable, kVhdxTableBytes);
  if (!regions) return fail(regions.error());
  if (!regions->starts_with("regi")) return damaged();
  const auto region_count = std::min<std::uint64_t>(little_endian(*regions, 8, 4), kMaxRegions);
  const auto region = find_entry(*regions, 16, region_count, kMetadataRegion);
  if (!region) return damaged();
  const auto metadata_offset = little_endian(*regions, *region + 16, 8);
  if (!source.holds(metadata_offset, kVhdxTableBytes)) return damaged();
  auto table = source.read(metadata_offset, kVhdxTableBytes);
  if (!table) return fail(table.error());
  if (!table->starts_with("metadata")) return damaged();
  const auto item_count = little_endian(*table, 10, 2);
  const auto read_item = [&](std::string_view guid) -> Result<std::string> {
    const auto entry = find_entry(*table, 32, item_count, guid);
    if (!entry) return damaged();
    const auto offset = little_endian(*table, *entry + 16, 4);
    if (!source.holds(metadata_offset, offset + 8)) return damaged();
    return source.read(metadata_offset + offset, 8);
  };
  auto parameters = read_item(kFileParameters);
  if (!parameters) return fail(parameters.error());
  constexpr std::uint64_t kHasParent = 2;
  if ((little_endian(*parameters, 4, 4) & kHasParent) != 0) {
    return refuse(
        "vhdx",
        "it is a difference to another image; merge it first: Merge-VHD, or qemu-img convert -O qcow2");
  }
  auto size = read_item(kVirtualDiskSize);
  if (!size) return fail(size.error());
  ImageHeader header;
  header.format = Format::vhdx;
  header.virtual_size_bytes = little_endian(*size, 0, 8);
  if (header.virtual_size_bytes == 0) return refuse("vhdx", "its disk has 0 bytes");
  return header;
}

std::optional<std::string> unsupported_disk_format(std::string_view head) {
  struct Known {
    std::string_view magic, name, from;
  };
  // Each can name other files or needs a secret, so none is taken even as "raw".
  static constexpr std::array kKnown{
      Known{"# Disk DescriptorFile", "a VMDK text descriptor, which names other files", "vmdk"},
      Known{"COWD", "an ESX COW disk", "vmdk"},
      Known{"QFI\xfb", "a qcow version 1 image", "qcow"},
      Known{std::string_view("QED\0", 4), "a QED image", "qed"},
      Known{"conectix", "a VHD (Virtual PC) image", "vpc"},
      Known{"WithoutFreeSpace", "a Parallels image", "parallels"},
      Known{"WithouFreSpacExt", "a Parallels image", "parallels"},
      Known{"LUKS\xba\xbe", "an encrypted LUKS image", "luks"},
  };
  for (const auto& known : kKnown) {
    if (!head.starts_with(known.magic)) continue;
    return "the image is " + std::string(known.name) +
           "; supported are qcow2, raw, vdi, vmdk (one file) and vhdx. Convert it first: qemu-img convert "
           "-f " +
           std::string(known.from) + " -O qcow2 in out.qcow2";
  }
  return std::nullopt;
}

std::optional<std::string> doubtful_as_raw(std::string_view head, std::string_view last_sector) {
  if (last_sector.starts_with("conectix")) {
    return "the image ends in a VHD footer. Convert it first: qemu-img convert -f vpc -O qcow2 in.vhd "
           "out.qcow2; or "
           "declare it as raw";
  }
  struct Archive {
    std::string_view magic, name;
  };
  static constexpr std::array kArchives{Archive{"\x1f\x8b\x08", "gzip"},
                                        Archive{std::string_view("\xfd"
                                                                 "7zXZ\0",
                                                                 6),
                                                "xz"},
                                        Archive{"\x28\xb5\x2f\xfd", "zstd"},
                                        Archive{"PK\x03\x04", "zip"},
                                        Archive{"BZh", "bzip2"},
                                        Archive{"7z\xbc\xaf\x27\x1c", "7z"}};
  for (const auto& archive : kArchives) {
    if (head.starts_with(archive.magic)) {
      return "the image is a " + std::string(archive.name) + " archive: unpack it and upload the disk in it";
    }
  }
  if (head.size() > 262 && head.substr(257, 5) == "ustar") {
    return "the image is a tar archive (an OVA?): unpack it and upload the .vmdk in it";
  }
  return std::nullopt;
}

}  // namespace educloud::image
