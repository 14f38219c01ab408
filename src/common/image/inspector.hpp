#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "common/base/limits.hpp"
#include "common/base/result.hpp"

namespace educloud::image {

/// Formats an uploaded image may have. Only qcow2 (standalone) and raw are ever published.
enum class Format { raw, qcow2, vdi, vmdk, vhdx };
/// As qemu-img takes it after -f.
std::string_view to_string(Format format);
/// Errors: invalid_argument naming the formats there are.
Result<Format> parse_format(std::string_view text);

/// What a header says. All numbers are the file's own claims, checked against the rules of inspect().
struct ImageHeader {
  Format format = Format::raw;
  std::uint64_t file_size_bytes = 0;
  std::uint64_t virtual_size_bytes = 0;  ///< of the disk in it; raw: the file's length
  int version = 0;                       ///< qcow2: 2 or 3
  int cluster_bits = 0;                  ///< qcow2: 9..21
  bool extended_l2 = false;              ///< qcow2: subclusters
  std::string compression;               ///< qcow2: "zlib" or "zstd", of compressed clusters if there are any
};

struct InspectLimits {
  std::uint64_t max_file_bytes = limits::kImageBytes;
  std::uint64_t max_virtual_bytes = limits::kImageBytes;
};

/// Looks at an image of unknown origin before any tool does (IMG-1). Reads at most the header: the first
/// cluster of a qcow2, a few KiB of the others; never a file that the header names. The read position of `fd`
/// stays.
///
/// qcow2 is an allow-list: version 2 or 3, no backing file, no external data file, no encryption, no
/// internal snapshots, not marked dirty or corrupt, only known incompatible feature bits and header
/// extensions, tables aligned and inside the file. vdi, vmdk and vhdx must be single files without a
/// parent. What matches nothing is raw, whatever it holds.
///
/// `declared`: what the uploader said it is; nullopt: not said.
/// Errors: invalid_argument (which rule, which value, and a command that makes the image acceptable; names
/// from the header are cut to 200 characters and cleaned of control characters), too_large, internal (I/O).
Result<ImageHeader> inspect(int fd, const InspectLimits& limits = {},
                            std::optional<Format> declared = std::nullopt);
Result<ImageHeader> inspect_file(const std::filesystem::path& path, const InspectLimits& limits = {},
                                 std::optional<Format> declared = std::nullopt);

/// The same for a qcow2 overlay of ours: all rules of inspect(), except that it must have a backing
/// file, exactly `base` by name, and name its format `base_format`.
/// Errors: as inspect(); invalid_argument if the backing file or its format is another one.
Result<ImageHeader> inspect_overlay(int fd, const std::filesystem::path& base, Format base_format,
                                    const InspectLimits& limits = {});

/// A name out of a header as it may be shown: at most 200 characters, '?' for control and non-ASCII bytes.
std::string printable(std::string_view raw);

}  // namespace educloud::image
