// Ids, frames and manifests come from other hosts. Besides crashes this checks what the decoders promise:
// what they take encodes to the same bytes, nothing is written past raw_bytes, and it does not matter how a
// stream of frames is cut.
#include <xxhash.h>

#include <cstdlib>
#include <cstring>

#include "common/chunk/frame.hpp"
#include "common/chunk/manifest.hpp"

namespace {

namespace chunk = educloud::chunk;
using Input = std::span<const char>;

void require(bool good) {
  if (!good) std::abort();
}

template <class T>
void require_short_message(const educloud::Result<T>& result) {
  require(result.has_value() || result.error().message.size() < 1000);
}

bool same(Input a, std::string_view b) {
  return std::string_view(a.data(), a.size()) == b;
}

void fuzz_ids(Input input) {
  const std::string_view text(input.data(), input.size());
  const auto ids = chunk::decode_ids(text, 1000);
  require_short_message(ids);
  if (ids) require(same(input, chunk::encode_ids(*ids)) && ids->size() <= 1000);
  const auto id = chunk::ChunkId::parse(text);
  if (id) require(same(input, id->hex()));
}

void fuzz_manifest(Input input) {
  const auto manifest = chunk::Manifest::decode(input);
  require_short_message(manifest);
  if (!manifest) return;
  require(same(input, manifest->encode()));
  require(manifest->data_bytes <= manifest->disk_bytes && manifest->disk_bytes <= chunk::kMaxDiskBytes);
  for (const auto& ref : manifest->groups)
    require(chunk::chunks_in_group(manifest->disk_bytes, ref.index) > 0);
  static_cast<void>(chunk::DiskMap(manifest->disk_bytes).groups_differing(*manifest));
}

void fuzz_group(Input input) {
  if (input.empty()) return;
  const auto count = static_cast<unsigned char>(input[0]) % chunk::kGroupChunks + 1;
  input = input.subspan(1);
  const auto group = chunk::Group::decode(input, count);
  require_short_message(group);
  if (group) require(same(input, group->encode()) && !group->is_empty());
}

/// Lays right digests over the input, so that what is behind them is reached: the input is disk_bytes, then
/// groups of {index, length, encoding}.
std::string with_digests(Input input) {
  if (input.size() < 8) return {};
  chunk::Manifest manifest;
  std::memcpy(&manifest.disk_bytes, input.data(), 8);
  manifest.disk_bytes %= 64 * chunk::kGroupBytes;
  input = input.subspan(8);
  std::string groups;
  while (input.size() >= 4) {
    std::uint16_t index = 0, length = 0;
    std::memcpy(&index, input.data(), 2);
    std::memcpy(&length, input.data() + 2, 2);
    const auto piece = input.subspan(4, std::min<std::size_t>(length % 2100, input.size() - 4));
    input = input.subspan(4 + piece.size());
    manifest.groups.push_back({index % 70U, chunk::ChunkId::of(piece)});
    manifest.data_bytes += piece.size() / 32 * chunk::kChunkBytes;
    const auto size = static_cast<std::uint32_t>(piece.size());
    groups.append(reinterpret_cast<const char*>(&size), 4);
    groups.append(piece.data(), piece.size());
  }
  const auto root = manifest.encode();
  const auto size = static_cast<std::uint32_t>(root.size());
  return std::string(reinterpret_cast<const char*>(&size), 4) + root + groups;
}

void fuzz_map(Input input) {
  const auto map = chunk::DiskMap::deserialize(input);
  require_short_message(map);
  if (!map) return;
  require(same(input, map->serialize()));
  require(map->chunks_differing(*map).empty());
  require(map->chunks_differing(chunk::DiskMap(0)).size() == map->data_chunks());
  require(map->groups_differing(map->manifest()).empty());
}

/// The checksum is made right, else nothing gets past it.
void fuzz_decode(Input input) {
  if (input.size() < chunk::kFrameHeaderBytes) return;
  auto header = chunk::decode_header(input.first(chunk::kFrameHeaderBytes));
  require_short_message(header);
  if (!header) return;
  std::array<char, chunk::kFrameHeaderBytes> again{};
  chunk::encode_header(*header, again);
  require(same(input.first(again.size()), std::string_view(again.data(), again.size())));
  const auto stored = input.subspan(chunk::kFrameHeaderBytes);
  header->stored_bytes = static_cast<std::uint32_t>(stored.size());
  header->checksum = ::XXH3_64bits(stored.data(), stored.size());
  static chunk::FrameDecoder decoder;
  // Of exactly this size, so that the address sanitizer sees one byte too many.
  const auto out = std::make_unique<char[]>(header->raw_bytes);
  const std::span<char> room(out.get(), header->raw_bytes);
  const auto result = decoder.decode(*header, stored, room);
  require_short_message(result);
  if (result) require(chunk::ChunkId::of(room) == header->id);
}

struct Heard {
  std::vector<std::string> frames;
  std::string end;
  bool operator==(const Heard&) const = default;
};

Heard read_frames(Input input, std::size_t piece) {
  Heard heard;
  chunk::FrameReader reader([&](const chunk::FrameHeader& header, Input stored) -> educloud::Result<> {
    require(stored.size() == header.stored_bytes);
    heard.frames.push_back(header.id.hex() + std::string(stored.data(), stored.size()));
    return {};
  });
  while (!input.empty()) {
    const auto some = input.first(std::min(piece, input.size()));
    if (auto ok = reader.feed(some); !ok) {
      heard.end = ok.error().message;
      return heard;
    }
    input = input.subspan(some.size());
  }
  if (auto ok = reader.finish(); !ok) heard.end = ok.error().message;
  return heard;
}

void fuzz_stream(Input input) {
  if (input.size() < 2) return;
  const auto piece = static_cast<unsigned char>(input[0]) * 37UL + 1;
  const bool real = input[1] != 0;
  input = input.subspan(2);
  std::string frames;
  if (real) {
    // Good frames of pieces of the input, then what is left as it is.
    chunk::FrameEncoder encoder;
    for (int i = 0; i < 4 && input.size() > 40; ++i) {
      require(encoder.append(input.first(20 + static_cast<std::size_t>(i) * 5), frames).has_value());
      input = input.subspan(10);
    }
  }
  frames.append(input.data(), input.size());
  require(read_frames(frames, piece) == read_frames(frames, frames.size()));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const Input input(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 7) {
    case 0: fuzz_ids(input); break;
    case 1: fuzz_manifest(input); break;
    case 2: fuzz_group(input); break;
    case 3: fuzz_map(input); break;
    case 4: fuzz_map(with_digests(input)); break;
    case 5: fuzz_decode(input); break;
    default: fuzz_stream(input); break;
  }
  return 0;
}
