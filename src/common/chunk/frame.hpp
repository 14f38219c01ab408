#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "common/chunk/chunk_id.hpp"

namespace educloud::chunk {

/// A chunk as it is stored in packs and sent over the wire, compressed once and forwarded untouched:
///   offset 0  "EDF1"         4 bytes
///          4  codec          1 (Codec)
///          5  reserved       3, zero
///          8  raw_bytes      4, little endian, 1..64 KiB
///         12  stored_bytes   4, little endian, 1..raw_bytes; raw: == raw_bytes
///         16  checksum       8, little endian, XXH3-64 of the stored bytes
///         24  id            32, SHA-256 of the raw bytes
///         56  stored bytes
inline constexpr std::size_t kFrameHeaderBytes = 56;
inline constexpr std::size_t kMaxFrameBytes = kFrameHeaderBytes + kChunkBytes;

enum class Codec : std::uint8_t { raw = 0, zstd = 1 };

struct FrameHeader {
  ChunkId id;
  Codec codec = Codec::raw;
  std::uint32_t raw_bytes = 0;
  std::uint32_t stored_bytes = 0;
  std::uint64_t checksum = 0;

  std::size_t frame_bytes() const { return kFrameHeaderBytes + stored_bytes; }
  bool operator==(const FrameHeader&) const = default;
};

void encode_header(const FrameHeader& header, std::span<char, kFrameHeaderBytes> out);
/// Errors: corrupt (what is wrong with which field). `data`: exactly the header.
Result<FrameHeader> decode_header(std::span<const char> data);
/// XXH3 of the stored bytes: cheap, finds a bad disk or cable, not an attacker. Errors: corrupt.
Result<> check_stored(const FrameHeader& header, std::span<const char> stored);

/// Makes frames. zstd level 1; stored raw if that saves less than 1/16. Keeps its zstd context: one per
/// thread.
class FrameEncoder {
 public:
  FrameEncoder();
  ~FrameEncoder();
  FrameEncoder(FrameEncoder&&) noexcept;
  /// Appends the whole frame (header and stored bytes) of `raw` (1..64 KiB) to `out`; returns its header.
  Result<FrameHeader> append(std::span<const char> raw, std::string& out);
  /// The same with the id already known.
  Result<FrameHeader> append(const ChunkId& id, std::span<const char> raw, std::string& out);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Unpacks and proves frames. One per thread.
class FrameDecoder {
 public:
  FrameDecoder();
  ~FrameDecoder();
  FrameDecoder(FrameDecoder&&) noexcept;
  /// Unpacks into `out` (at least raw_bytes) and checks XXH3, the length and SHA-256 == id. It can not write
  /// past raw_bytes whatever the frame says. Errors: corrupt, naming the id.
  Result<> decode(const FrameHeader& header, std::span<const char> stored, std::span<char> out);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Cuts a stream of frames that arrives in arbitrary pieces. Copies only what straddles two pieces.
class FrameReader {
 public:
  /// `stored` is valid during the call only.
  using OnFrame = std::function<Result<>(const FrameHeader&, std::span<const char> stored)>;
  explicit FrameReader(OnFrame on_frame) : on_frame_(std::move(on_frame)) {}
  /// Errors: corrupt (header), or what `on_frame` returned; after an error the reader is of no use.
  Result<> feed(std::span<const char> data);
  /// At the end of the stream. Errors: corrupt if it ended inside a frame.
  Result<> finish() const;

 private:
  OnFrame on_frame_;
  std::string pending_;
};

}  // namespace educloud::chunk
