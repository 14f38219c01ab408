#include "nc/hypervisor/png.hpp"

#include <array>
#include <charconv>
#include <cstdint>

namespace educloud::nc {
namespace {

constexpr std::string_view kPngMagic = "\x89PNG\r\n\x1a\n";
constexpr std::uint32_t kMaxSide = 16384;
constexpr std::size_t kStoredBlock = 65535;  // RFC 1951: the most a stored block holds

std::uint32_t crc32(std::string_view data) {
  static const auto table = [] {
    std::array<std::uint32_t, 256> made{};
    for (std::uint32_t n = 0; n < 256; ++n) {
      std::uint32_t c = n;
      for (int k = 0; k < 8; ++k) c = (c & 1) != 0 ? 0xedb88320u ^ (c >> 1) : c >> 1;
      made[n] = c;
    }
    return made;
  }();
  std::uint32_t crc = 0xffffffffu;
  for (const char byte : data) crc = table[(crc ^ static_cast<unsigned char>(byte)) & 0xff] ^ (crc >> 8);
  return crc ^ 0xffffffffu;
}

std::uint32_t adler32(std::string_view data) {
  std::uint32_t a = 1, b = 0;
  for (const char byte : data) {
    a = (a + static_cast<unsigned char>(byte)) % 65521;
    b = (b + a) % 65521;
  }
  return (b << 16) | a;
}

void put_u32(std::string& out, std::uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<char>((value >> shift) & 0xff));
}

void put_chunk(std::string& out, std::string_view type, std::string_view data) {
  put_u32(out, static_cast<std::uint32_t>(data.size()));
  std::string body(type);
  body += data;
  out += body;
  put_u32(out, crc32(body));
}

/// zlib stream of stored blocks: larger, but a screenshot lives for one answer.
std::string zlib_stored(std::string_view data) {
  std::string out("\x78\x01", 2);
  const std::uint32_t sum = adler32(data);
  do {
    const auto piece = data.substr(0, kStoredBlock);
    data.remove_prefix(piece.size());
    const auto size = static_cast<std::uint16_t>(piece.size());
    const auto inverse = static_cast<std::uint16_t>(~size);
    out.push_back(data.empty() ? '\1' : '\0');
    for (const std::uint16_t value : {size, inverse}) {
      out.push_back(static_cast<char>(value & 0xff));
      out.push_back(static_cast<char>(value >> 8));
    }
    out += piece;
  } while (!data.empty());
  put_u32(out, sum);
  return out;
}

/// The next number of a PPM header; blanks and comments before it are skipped.
bool take_number(std::string_view& in, std::uint32_t& value) {
  while (!in.empty() && (in[0] == ' ' || in[0] == '\n' || in[0] == '\t' || in[0] == '\r' || in[0] == '#')) {
    if (in[0] == '#')
      in.remove_prefix(std::min(in.size() - 1, in.find('\n') == in.npos ? in.size() - 1 : in.find('\n')));
    in.remove_prefix(1);
  }
  const auto [end, error] = std::from_chars(in.data(), in.data() + in.size(), value);
  if (error != std::errc{}) return false;
  in.remove_prefix(static_cast<std::size_t>(end - in.data()));
  return true;
}

}  // namespace

Result<std::string> to_png(std::string picture) {
  if (picture.size() > kScreenshotBytes) return fail(ErrorCode::too_large, "the screenshot is over 64 MiB");
  if (picture.starts_with(kPngMagic)) return picture;
  std::string_view in = picture;
  std::uint32_t width = 0, height = 0, depth = 0;
  if (!in.starts_with("P6"))
    return fail(ErrorCode::invalid_argument, "the screenshot is neither PNG nor PPM");
  in.remove_prefix(2);
  if (!take_number(in, width) || !take_number(in, height) || !take_number(in, depth) || depth != 255 ||
      width == 0 || height == 0 || width > kMaxSide || height > kMaxSide || in.empty()) {
    return fail(ErrorCode::invalid_argument, "the screenshot's PPM header is not one of 8 bits a colour");
  }
  in.remove_prefix(1);
  const std::size_t row_bytes = std::size_t{width} * 3;
  if (in.size() < row_bytes * height) return fail(ErrorCode::invalid_argument, "the screenshot is cut short");
  std::string rows;
  rows.reserve((row_bytes + 1) * height);
  for (std::uint32_t y = 0; y < height; ++y) {
    rows.push_back('\0');  // no filter
    rows += in.substr(y * row_bytes, row_bytes);
  }
  std::string header;
  put_u32(header, width);
  put_u32(header, height);
  header.append("\x08\x02\x00\x00\x00", 5);  // 8 bits, RGB
  std::string png(kPngMagic);
  put_chunk(png, "IHDR", header);
  put_chunk(png, "IDAT", zlib_stored(rows));
  put_chunk(png, "IEND", {});
  return png;
}

}  // namespace educloud::nc
