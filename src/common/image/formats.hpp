#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "common/image/inspector.hpp"

// Private to common/image: the header readers behind inspect(). All of them read untrusted bytes.
namespace educloud::image {

/// A file of unknown origin, read only by position and only in small pieces.
struct Source {
  int fd = -1;
  std::uint64_t size = 0;

  /// Up to `length` bytes at `offset`; shorter at the file's end. Errors: internal (I/O).
  Result<std::string> read(std::uint64_t offset, std::size_t length) const;
  /// True if [offset, offset + length) lies inside the file; does not overflow.
  bool holds(std::uint64_t offset, std::uint64_t length) const {
    return offset <= size && length <= size - offset;
  }
};

/// Integers out of a header; 0 beyond its end, so callers check the length first.
std::uint64_t big_endian(std::string_view bytes, std::size_t offset, int width);
std::uint64_t little_endian(std::string_view bytes, std::size_t offset, int width);

/// The only backing file a qcow2 may name.
struct ExpectedBacking {
  std::string file;
  std::string format;
};

inline constexpr std::string_view kQcow2Magic = "QFI\xfb";
inline constexpr std::string_view kVmdkMagic = "KDMV";
inline constexpr std::string_view kVhdxMagic = "vhdxfile";
inline constexpr std::uint32_t kVdiSignature = 0xbeda107f;

/// Each checks one format by its allow-list and fills in the header.
/// Errors: invalid_argument, too_large, internal.
Result<ImageHeader> read_qcow2(const Source& source, const InspectLimits& limits,
                               const std::optional<ExpectedBacking>& backing);
Result<ImageHeader> read_vdi(const Source& source);
Result<ImageHeader> read_vmdk(const Source& source);
Result<ImageHeader> read_vhdx(const Source& source);

/// Formats we know and do not take: what it is and how to make it acceptable. nullopt: none of them.
std::optional<std::string> unsupported_disk_format(std::string_view head);
/// The same for archives and files that end in a VHD footer: as raw they are taken if the user insists.
std::optional<std::string> doubtful_as_raw(std::string_view head, std::string_view last_sector);

}  // namespace educloud::image
