#include "common/image/inspector.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "common/image/formats.hpp"
#include "common/sys/file.hpp"

namespace educloud::image {
namespace {

struct FormatName {
  Format format;
  std::string_view name;
};
constexpr std::array kFormats{FormatName{Format::raw, "raw"}, FormatName{Format::qcow2, "qcow2"},
                              FormatName{Format::vdi, "vdi"}, FormatName{Format::vmdk, "vmdk"},
                              FormatName{Format::vhdx, "vhdx"}};

/// By magic numbers alone. nullopt: none of the formats that have one.
std::optional<Format> detect(std::string_view head) {
  if (head.starts_with(kQcow2Magic) && big_endian(head, 4, 4) != 1) return Format::qcow2;
  if (head.starts_with(kVmdkMagic)) return Format::vmdk;
  if (head.starts_with(kVhdxMagic)) return Format::vhdx;
  if (head.size() >= 0x44 && little_endian(head, 0x40, 4) == kVdiSignature) return Format::vdi;
  return std::nullopt;
}

Result<Source> open_source(int fd, const InspectLimits& limits) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) return fail(errno_error("stat the image", errno));
  if (!S_ISREG(info.st_mode)) return fail(ErrorCode::invalid_argument, "the image is not an ordinary file");
  if (info.st_size == 0) return fail(ErrorCode::invalid_argument, "the image is empty: upload it again");
  const Source source{fd, static_cast<std::uint64_t>(info.st_size)};
  if (source.size > limits.max_file_bytes) {
    return fail(ErrorCode::too_large, "the image file has " + std::to_string(source.size) +
                                          " bytes, more than the limit of " +
                                          std::to_string(limits.max_file_bytes));
  }
  return source;
}

Result<ImageHeader> read_raw(const Source& source, std::string_view head, std::optional<Format> declared) {
  if (auto what = unsupported_disk_format(head)) return fail(ErrorCode::invalid_argument, *what, "format");
  if (declared && *declared != Format::raw) {
    const std::string name(to_string(*declared));
    return fail(ErrorCode::invalid_argument,
                "the image was declared as " + name + " but has no " + name +
                    " header: upload the right file, or say raw",
                "format");
  }
  if (!declared) {
    auto last = source.read(source.size >= 512 ? source.size - 512 : 0, 512);
    if (!last) return fail(last.error());
    if (auto what = doubtful_as_raw(head, *last)) return fail(ErrorCode::invalid_argument, *what, "format");
  }
  ImageHeader header;
  header.virtual_size_bytes = source.size;
  return header;
}

Result<ImageHeader> check_size(Result<ImageHeader> header, const Source& source,
                               const InspectLimits& limits) {
  if (!header) return header;
  header->file_size_bytes = source.size;
  if (header->virtual_size_bytes > limits.max_virtual_bytes) {
    return fail(ErrorCode::too_large,
                "the disk in the image has " + std::to_string(header->virtual_size_bytes) +
                    " bytes, more than the limit of " + std::to_string(limits.max_virtual_bytes));
  }
  return header;
}

}  // namespace

std::string_view to_string(Format format) {
  for (const auto& one : kFormats) {
    if (one.format == format) return one.name;
  }
  return "?";
}

Result<Format> parse_format(std::string_view text) {
  for (const auto& one : kFormats) {
    if (one.name == text) return one.format;
  }
  return fail(ErrorCode::invalid_argument,
              "image format '" + printable(text) + "' is not one of raw, qcow2, vdi, vmdk, vhdx", "format");
}

std::string printable(std::string_view raw) {
  constexpr std::size_t kShown = 200;
  std::string text(raw.substr(0, kShown));
  for (char& c : text) {
    if (c < 0x20 || c == 0x7f) c = '?';  // char is signed here: bytes from 0x80 on are negative
  }
  if (raw.size() > kShown) text += "...";
  return text;
}

Result<std::string> Source::read(std::uint64_t offset, std::size_t length) const {
  std::string bytes;
  if (offset >= size) return bytes;
  bytes.resize(std::min<std::uint64_t>(length, size - offset));
  std::size_t have = 0;
  while (have < bytes.size()) {
    const ssize_t got =
        ::pread(fd, bytes.data() + have, bytes.size() - have, static_cast<off_t>(offset + have));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(errno_error("read the image's header", errno));
    if (got == 0) break;
    have += static_cast<std::size_t>(got);
  }
  bytes.resize(have);
  return bytes;
}

std::uint64_t big_endian(std::string_view bytes, std::size_t offset, int width) {
  std::uint64_t value = 0;
  for (std::size_t i = offset; i < offset + static_cast<std::size_t>(width); ++i) {
    value = (value << 8) | (i < bytes.size() ? static_cast<unsigned char>(bytes[i]) : 0U);
  }
  return value;
}

std::uint64_t little_endian(std::string_view bytes, std::size_t offset, int width) {
  std::uint64_t value = 0;
  for (std::size_t i = offset + static_cast<std::size_t>(width); i-- > offset;) {
    value = (value << 8) | (i < bytes.size() ? static_cast<unsigned char>(bytes[i]) : 0U);
  }
  return value;
}

Result<ImageHeader> inspect(int fd, const InspectLimits& limits, std::optional<Format> declared) {
  auto source = open_source(fd, limits);
  if (!source) return fail(source.error());
  auto head = source->read(0, 512);
  if (!head) return fail(head.error());
  const auto detected = detect(*head);
  if (!detected) return check_size(read_raw(*source, *head, declared), *source, limits);
  if (declared && *declared != *detected) {
    return fail(ErrorCode::invalid_argument,
                "the image was declared as " + std::string(to_string(*declared)) + " but its header says " +
                    std::string(to_string(*detected)) + ": upload it as that",
                "format");
  }
  switch (*detected) {
    case Format::qcow2: return check_size(read_qcow2(*source, limits, std::nullopt), *source, limits);
    case Format::vdi: return check_size(read_vdi(*source), *source, limits);
    case Format::vmdk: return check_size(read_vmdk(*source), *source, limits);
    case Format::vhdx: return check_size(read_vhdx(*source), *source, limits);
    case Format::raw: break;
  }
  return fail(ErrorCode::internal, "inspect: no reader for this format");
}

Result<ImageHeader> inspect_file(const std::filesystem::path& path, const InspectLimits& limits,
                                 std::optional<Format> declared) {
  // O_NONBLOCK: opening a FIFO that somebody put there must not hang.
  auto fd = sys::open_file(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  if (!fd) return fail(fd.error());
  return inspect(fd->get(), limits, declared);
}

Result<ImageHeader> inspect_overlay(int fd, const std::filesystem::path& base, Format base_format,
                                    const InspectLimits& limits) {
  auto source = open_source(fd, limits);
  if (!source) return fail(source.error());
  const ExpectedBacking backing{base.string(), std::string(to_string(base_format))};
  return check_size(read_qcow2(*source, limits, backing), *source, limits);
}

}  // namespace educloud::image
