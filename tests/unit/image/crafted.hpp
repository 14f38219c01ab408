#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "common/image/inspector.hpp"
#include "common/sys/file.hpp"

namespace educloud::image::testing {

inline void put(std::string& bytes, std::size_t at, std::string_view what) {
  if (bytes.size() < at + what.size()) bytes.resize(at + what.size());
  bytes.replace(at, what.size(), what);
}

inline void put_be(std::string& bytes, std::size_t at, int width, std::uint64_t value) {
  for (int i = 0; i < width; ++i)
    put(bytes, at + static_cast<std::size_t>(i),
        std::string(1, static_cast<char>(value >> (8 * (width - 1 - i)))));
}

inline void put_le(std::string& bytes, std::size_t at, int width, std::uint64_t value) {
  for (int i = 0; i < width; ++i)
    put(bytes, at + static_cast<std::size_t>(i), std::string(1, static_cast<char>(value >> (8 * i))));
}

/// A header of which every field can be spoilt before it is written.
struct Qcow2 {
  std::uint32_t version = 3, backing_size = 0, cluster_bits = 16, crypt_method = 0, l1_size = 1;
  std::uint32_t refcount_clusters = 1, snapshots = 0, refcount_order = 4, header_bytes = 112;
  std::uint64_t backing_offset = 0, size = 64 << 20, l1_offset = 3 << 16, refcount_offset = 1 << 16;
  std::uint64_t incompatible = 0, compatible = 0, autoclear = 0, file_bytes = 4 << 16;
  int compression = 0;
  std::string backing_name, extensions;

  Qcow2& extension(std::uint32_t type, std::string_view data) {
    std::string one;
    put_be(one, 0, 4, type);
    put_be(one, 4, 4, data.size());
    one += data;
    one.resize((one.size() + 7) / 8 * 8);
    extensions += one;
    return *this;
  }
  Qcow2& backing(std::string_view name, std::uint64_t offset = 512) {
    backing_name = name;
    backing_offset = offset;
    backing_size = static_cast<std::uint32_t>(name.size());
    return *this;
  }

  std::string bytes() const {
    std::string b(file_bytes, '\0');
    put(b, 0, "QFI\xfb");
    put_be(b, 4, 4, version);
    put_be(b, 8, 8, backing_offset);
    put_be(b, 16, 4, backing_size);
    put_be(b, 20, 4, cluster_bits);
    put_be(b, 24, 8, size);
    put_be(b, 32, 4, crypt_method);
    put_be(b, 36, 4, l1_size);
    put_be(b, 40, 8, l1_offset);
    put_be(b, 48, 8, refcount_offset);
    put_be(b, 56, 4, refcount_clusters);
    put_be(b, 60, 4, snapshots);
    if (version >= 3) {
      put_be(b, 72, 8, incompatible);
      put_be(b, 80, 8, compatible);
      put_be(b, 88, 8, autoclear);
      put_be(b, 96, 4, refcount_order);
      put_be(b, 100, 4, header_bytes);
      put(b, 104, std::string(1, static_cast<char>(compression)));
    }
    put(b, version >= 3 ? header_bytes : 72, extensions);
    if (!backing_name.empty() && backing_offset < (1 << 20)) put(b, backing_offset, backing_name);
    return b;
  }
};

/// A monolithicSparse VMDK header with its descriptor.
inline std::string vmdk(std::string_view descriptor, std::uint64_t capacity = 2048,
                        std::uint64_t descriptor_sector = 1) {
  std::string b(64 * 1024, '\0');
  put(b, 0, "KDMV");
  put_le(b, 4, 4, 1);
  put_le(b, 12, 8, capacity);
  put_le(b, 28, 8, descriptor_sector);
  put_le(b, 36, 8, 20);
  put(b, 512, descriptor);
  return b;
}

inline std::string vdi(std::uint32_t type = 1, std::uint64_t size = 1 << 20) {
  std::string b(1024, '\0');
  put(b, 0, "<<< Oracle VM VirtualBox Disk Image >>>\n");
  put_le(b, 0x40, 4, 0xbeda107f);
  put_le(b, 0x44, 4, 0x00010001);
  put_le(b, 0x4c, 4, type);
  put_le(b, 0x170, 8, size);
  return b;
}

inline std::string vhdx(std::uint64_t size = 1 << 20, bool parent = false) {
  std::string b(512 * 1024, '\0');
  put(b, 0, "vhdxfile");
  const std::size_t regions = 192 * 1024, metadata = 256 * 1024, item = metadata + 64 * 1024;
  put(b, regions, "regi");
  put_le(b, regions + 8, 4, 1);
  put(b, regions + 16,
      std::string_view("\x06\xa2\x7c\x8b\x90\x47\x9a\x4b\xb8\xfe\x57\x5f\x05\x0f\x88\x6e", 16));
  put_le(b, regions + 32, 8, metadata);
  put(b, metadata, "metadata");
  put_le(b, metadata + 10, 2, 2);
  put(b, metadata + 32,
      std::string_view("\x37\x67\xa1\xca\x36\xfa\x43\x4d\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b", 16));
  put_le(b, metadata + 48, 4, item - metadata);
  put(b, metadata + 64,
      std::string_view("\x24\x42\xa5\x2f\x1b\xcd\x76\x48\xb2\x11\x5d\xbe\xd8\x3b\xf4\xb8", 16));
  put_le(b, metadata + 80, 4, item - metadata + 8);
  put_le(b, item + 4, 4, parent ? 2 : 0);
  put_le(b, item + 8, 8, size);
  return b;
}

/// A file without a name that holds `bytes`.
inline sys::Fd in_memory(std::string_view bytes) {
  sys::Fd fd(::memfd_create("image", MFD_CLOEXEC));
  if (!sys::write_all(fd.get(), bytes)) std::abort();
  return fd;
}

inline Result<ImageHeader> inspect_bytes(std::string_view bytes,
                                         std::optional<Format> declared = std::nullopt,
                                         const InspectLimits& limits = {}) {
  return inspect(in_memory(bytes).get(), limits, declared);
}

}  // namespace educloud::image::testing
