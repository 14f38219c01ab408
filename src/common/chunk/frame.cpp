#include "common/chunk/frame.hpp"

#include <xxhash.h>
#include <zstd.h>

#include <cstdlib>
#include <cstring>

#include "common/chunk/little_endian.hpp"

namespace educloud::chunk {
namespace {

constexpr std::string_view kMagic = "EDF1";
constexpr int kLevel = 1;

tl::unexpected<Error> bad_header(const std::string& why) {
  return fail(ErrorCode::corrupt, "frame header refused: " + why);
}

tl::unexpected<Error> bad_frame(const FrameHeader& header, const std::string& why) {
  return fail(ErrorCode::corrupt, "chunk " + header.id.hex() + ": " + why);
}

std::uint64_t xxh3(std::span<const char> data) {
  return ::XXH3_64bits(data.data(), data.size());
}

/// Exactly one zstd frame, all of `stored`, that says it holds raw_bytes: what our encoder makes. Anything
/// else (several frames, skippable ones, an unknown size) is somebody trying something.
Result<> unpack_zstd(ZSTD_DCtx* context, const FrameHeader& header, std::span<const char> stored, char* out) {
  const auto says = ::ZSTD_getFrameContentSize(stored.data(), stored.size());
  if (says != header.raw_bytes) {
    return bad_frame(header, "its zstd data is not " + std::to_string(header.raw_bytes) + " bytes unpacked");
  }
  const auto frame = ::ZSTD_findFrameCompressedSize(stored.data(), stored.size());
  if (::ZSTD_isError(frame) != 0 || frame != stored.size()) {
    return bad_frame(header, "its zstd data is cut or has something behind it");
  }
  const auto got = ::ZSTD_decompressDCtx(context, out, header.raw_bytes, stored.data(), stored.size());
  if (::ZSTD_isError(got) != 0) {
    return bad_frame(header, std::string("does not unpack: ") + ::ZSTD_getErrorName(got));
  }
  if (got != header.raw_bytes) {
    return bad_frame(
        header, "unpacks to " + std::to_string(got) + " bytes, not to " + std::to_string(header.raw_bytes));
  }
  return {};
}

}  // namespace

void encode_header(const FrameHeader& header, std::span<char, kFrameHeaderBytes> out) {
  std::memcpy(out.data(), kMagic.data(), kMagic.size());
  store_le(out, 4, static_cast<std::uint32_t>(header.codec));  // the codec's byte and three zeros
  store_le(out, 8, header.raw_bytes);
  store_le(out, 12, header.stored_bytes);
  store_le(out, 16, header.checksum);
  std::memcpy(out.data() + 24, header.id.bytes.data(), ChunkId::kBytes);
}

Result<FrameHeader> decode_header(std::span<const char> data) {
  if (data.size() != kFrameHeaderBytes) {
    return bad_header(std::to_string(data.size()) + " bytes instead of " + std::to_string(kFrameHeaderBytes));
  }
  if (std::memcmp(data.data(), kMagic.data(), kMagic.size()) != 0) {
    return bad_header("it does not begin with EDF1");
  }
  const auto codec = load_le<std::uint32_t>(data, 4);
  if (codec > static_cast<std::uint32_t>(Codec::zstd)) {
    return bad_header("codec and reserved bytes are " + std::to_string(codec) + ", not 0 or 1");
  }
  FrameHeader header;
  header.codec = static_cast<Codec>(codec);
  header.raw_bytes = load_le<std::uint32_t>(data, 8);
  header.stored_bytes = load_le<std::uint32_t>(data, 12);
  header.checksum = load_le<std::uint64_t>(data, 16);
  std::memcpy(header.id.bytes.data(), data.data() + 24, ChunkId::kBytes);
  if (header.raw_bytes == 0 || header.raw_bytes > kChunkBytes) {
    return bad_header("raw_bytes " + std::to_string(header.raw_bytes) + " is not 1.." +
                      std::to_string(kChunkBytes));
  }
  const bool fits = header.codec == Codec::raw
                        ? header.stored_bytes == header.raw_bytes
                        : header.stored_bytes != 0 && header.stored_bytes <= header.raw_bytes;
  if (!fits) {
    return bad_header("stored_bytes " + std::to_string(header.stored_bytes) + " does not fit raw_bytes " +
                      std::to_string(header.raw_bytes) + " and codec " + std::to_string(codec));
  }
  if (header.id.is_hole()) return bad_header("its id is all zeros, which names no chunk");
  return header;
}

Result<> check_stored(const FrameHeader& header, std::span<const char> stored) {
  if (stored.size() != header.stored_bytes) {
    return bad_frame(header, std::to_string(stored.size()) + " bytes stored, its header says " +
                                 std::to_string(header.stored_bytes));
  }
  if (xxh3(stored) != header.checksum) {
    return bad_frame(header, "the checksum of its stored bytes is wrong: a bad disk, cable or memory");
  }
  return {};
}

struct FrameEncoder::Impl {
  Impl() : context(::ZSTD_createCCtx()), buffer(::ZSTD_compressBound(kChunkBytes)) {
    if (context == nullptr) throw std::bad_alloc();
  }
  ~Impl() { ::ZSTD_freeCCtx(context); }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  ZSTD_CCtx* context;
  std::vector<char> buffer;  // `out` would have to be filled with zeros first
};

FrameEncoder::FrameEncoder() : impl_(std::make_unique<Impl>()) {}
FrameEncoder::~FrameEncoder() = default;
FrameEncoder::FrameEncoder(FrameEncoder&&) noexcept = default;

Result<FrameHeader> FrameEncoder::append(std::span<const char> raw, std::string& out) {
  return append(ChunkId::of(raw), raw, out);
}

Result<FrameHeader> FrameEncoder::append(const ChunkId& id, std::span<const char> raw, std::string& out) {
  if (raw.empty() || raw.size() > kChunkBytes) {
    return fail(ErrorCode::invalid_argument, "a chunk has 1.." + std::to_string(kChunkBytes) +
                                                 " bytes, not " + std::to_string(raw.size()));
  }
  FrameHeader header;
  header.id = id;
  header.raw_bytes = static_cast<std::uint32_t>(raw.size());
  const auto packed = ::ZSTD_compressCCtx(impl_->context, impl_->buffer.data(), impl_->buffer.size(),
                                          raw.data(), raw.size(), kLevel);
  if (::ZSTD_isError(packed) != 0) {
    return fail(ErrorCode::internal,
                "zstd can not compress a chunk: " + std::string(::ZSTD_getErrorName(packed)));
  }
  std::span<const char> stored = raw;
  if (packed < raw.size() && (raw.size() - packed) * 16 >= raw.size()) {
    header.codec = Codec::zstd;
    stored = std::span<const char>(impl_->buffer).first(packed);
  }
  header.stored_bytes = static_cast<std::uint32_t>(stored.size());
  header.checksum = xxh3(stored);
  std::array<char, kFrameHeaderBytes> encoded{};
  encode_header(header, encoded);
  out.append(encoded.data(), encoded.size());
  out.append(stored.data(), stored.size());
  return header;
}

struct FrameDecoder::Impl {
  Impl() : context(::ZSTD_createDCtx()) {
    if (context == nullptr) throw std::bad_alloc();
  }
  ~Impl() { ::ZSTD_freeDCtx(context); }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  ZSTD_DCtx* context;
};

FrameDecoder::FrameDecoder() : impl_(std::make_unique<Impl>()) {}
FrameDecoder::~FrameDecoder() = default;
FrameDecoder::FrameDecoder(FrameDecoder&&) noexcept = default;

Result<> FrameDecoder::decode(const FrameHeader& header, std::span<const char> stored, std::span<char> out) {
  // The header may not come from decode_header().
  if (header.raw_bytes == 0 || header.raw_bytes > kChunkBytes || out.size() < header.raw_bytes) {
    return bad_frame(
        header, "raw_bytes " + std::to_string(header.raw_bytes) + " is 0 or more than there is room for");
  }
  if (auto ok = check_stored(header, stored); !ok) return ok;
  switch (header.codec) {
    case Codec::raw:
      if (stored.size() != header.raw_bytes) return bad_frame(header, "stored raw, but of another length");
      std::memcpy(out.data(), stored.data(), stored.size());
      break;
    case Codec::zstd:
      if (auto ok = unpack_zstd(impl_->context, header, stored, out.data()); !ok) return ok;
      break;
    default: return bad_frame(header, "unknown codec");
  }
  if (ChunkId::of(out.first(header.raw_bytes)) != header.id) {
    return bad_frame(header, "its content has another SHA-256");
  }
  return {};
}

Result<> FrameReader::feed(std::span<const char> data) {
  // What began in an earlier piece: first its header, then the rest of it.
  const auto take = [&](std::size_t want) {
    const auto some = std::min(want - pending_.size(), data.size());
    pending_.append(data.data(), some);
    data = data.subspan(some);
    return pending_.size() == want;
  };
  if (!pending_.empty()) {
    if (pending_.size() < kFrameHeaderBytes && !take(kFrameHeaderBytes)) return {};
    const auto header = decode_header(std::span<const char>(pending_).first(kFrameHeaderBytes));
    if (!header) return fail(header.error());
    if (!take(header->frame_bytes())) return {};
    if (auto ok = on_frame_(*header, std::span<const char>(pending_).subspan(kFrameHeaderBytes)); !ok)
      return ok;
    pending_.clear();
  }
  while (data.size() >= kFrameHeaderBytes) {
    const auto header = decode_header(data.first(kFrameHeaderBytes));
    if (!header) return fail(header.error());
    if (data.size() < header->frame_bytes()) break;
    if (auto ok = on_frame_(*header, data.subspan(kFrameHeaderBytes, header->stored_bytes)); !ok) return ok;
    data = data.subspan(header->frame_bytes());
  }
  if (data.empty()) return {};
  pending_.reserve(kMaxFrameBytes);  // once, so that no frame makes it grow step by step
  pending_.assign(data.data(), data.size());
  return {};
}

Result<> FrameReader::finish() const {
  if (pending_.empty()) return {};
  return fail(ErrorCode::corrupt, "the stream of frames ended " + std::to_string(pending_.size()) +
                                      " bytes into a frame: it was cut");
}

}  // namespace educloud::chunk
