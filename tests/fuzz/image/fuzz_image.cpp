// The inspector reads headers that an attacker wrote. Besides crashes this checks what an accepted
// image promises: no reference to any other file.
#include <cstdlib>

#include "common/image/formats.hpp"
#include "unit/image/crafted.hpp"

namespace {

namespace image = educloud::image;

void check_promises(const image::ImageHeader& header, std::string_view bytes) {
  const bool sound = header.file_size_bytes == bytes.size() && header.virtual_size_bytes > 0 &&
                     header.virtual_size_bytes <= educloud::limits::kImageBytes;
  if (!sound) std::abort();
  if (header.format != image::Format::qcow2) return;
  const bool stands_alone = image::big_endian(bytes, 8, 8) == 0 && image::big_endian(bytes, 16, 4) == 0 &&
                            image::big_endian(bytes, 32, 4) == 0 && image::big_endian(bytes, 60, 4) == 0 &&
                            header.cluster_bits >= 9 && header.cluster_bits <= 21;
  if (!stands_alone) std::abort();
  if (header.version == 3 && (image::big_endian(bytes, 72, 8) & ~std::uint64_t{8 | 16}) != 0) std::abort();
}

/// The first byte chooses a good header to lay under the rest, so that deep checks are reached.
std::string make_image(std::string_view input) {
  if (input.empty()) return {};
  std::string bytes;
  switch (static_cast<unsigned char>(input[0]) % 6) {
    case 1: bytes = image::testing::Qcow2{}.bytes(); break;
    case 2: bytes = image::testing::vmdk("createType=\"monolithicSparse\"\n"); break;
    case 3: bytes = image::testing::vdi(); break;
    case 4: bytes = image::testing::vhdx(); break;
    default: return std::string(input.substr(1));
  }
  // Patches of {16-bit offset, byte}: small inputs change small parts.
  for (std::size_t at = 1; at + 3 <= input.size() && at < 400; at += 3) {
    const auto offset = image::big_endian(input, at, 2);
    bytes[offset % bytes.size()] = input[at + 2];
  }
  return bytes;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = make_image(std::string_view(reinterpret_cast<const char*>(data), size));
  const auto fd = image::testing::in_memory(bytes);
  const auto result = image::inspect(fd.get());
  if (result) check_promises(*result, bytes);
  if (!result && result.error().message.size() > 1000) std::abort();
  static_cast<void>(image::inspect(fd.get(), {}, image::Format::raw));
  static_cast<void>(image::inspect_overlay(fd.get(), "/base", image::Format::qcow2));
  return 0;
}
