#include <unordered_map>

#include "common/transfer/chunk_client.hpp"
#include "common/transfer/chunk_routes.hpp"

namespace educloud::transfer {
namespace {

using chunk::ChunkId;

/// Groups that are here already, by id.
using Known = std::unordered_map<ChunkId, const chunk::Group*, chunk::ChunkIdHash>;
/// Where a group that must be fetched belongs; the same one may stand at several places.
using Places = std::unordered_map<ChunkId, std::vector<std::uint32_t>, chunk::ChunkIdHash>;

Known known_groups(std::span<const chunk::DiskMap* const> have) {
  Known known;
  for (const chunk::DiskMap* map : have) {
    for (const auto& ref : map->manifest().groups) known.emplace(ref.id, &map->groups().at(ref.index));
  }
  return known;
}

class MapFetch {
 public:
  MapFetch(ChunkClient& client, std::uint64_t disk_bytes) : client_(client), map_(disk_bytes) {}

  Result<> take_known(const chunk::Manifest& manifest, const Known& known) {
    for (const auto& ref : manifest.groups) {
      if (const auto found = known.find(ref.id); found != known.end()) {
        if (auto ok = map_.add_group(ref.index, found->second->encode()); !ok) return ok;
        continue;
      }
      auto& places = places_[ref.id];
      if (places.empty()) wanted_.push_back(ref.id);
      places.push_back(ref.index);
    }
    return {};
  }

  Result<> fetch_rest(const std::stop_token& stop) {
    const auto on_frame = [this](const chunk::FrameHeader& header, std::span<const char> stored) {
      return add(header, stored);
    };
    for (std::size_t at = 0; at < wanted_.size(); at += kMaxIds) {
      const auto some = std::span<const ChunkId>(wanted_).subspan(at, std::min(kMaxIds, wanted_.size() - at));
      if (auto ok = client_.fetch(some, on_frame, stop); !ok) return ok;
    }
    return {};
  }

  chunk::DiskMap& map() { return map_; }

 private:
  Result<> add(const chunk::FrameHeader& header, std::span<const char> stored) {
    if (header.raw_bytes > chunk::kMaxGroupBytes) {
      return fail(ErrorCode::corrupt, "group " + header.id.hex() + " is larger than any");
    }
    std::array<char, chunk::kMaxGroupBytes> raw;
    if (auto ok = decoder_.decode(header, stored, raw); !ok) return ok;
    for (const std::uint32_t index : places_[header.id]) {
      if (auto ok = map_.add_group(index, std::span<const char>(raw).first(header.raw_bytes)); !ok) return ok;
    }
    return {};
  }

  ChunkClient& client_;
  chunk::DiskMap map_;
  chunk::FrameDecoder decoder_;
  std::vector<ChunkId> wanted_;
  Places places_;
};

}  // namespace

Result<chunk::DiskMap> fetch_map(ChunkClient& client, const chunk::Manifest& manifest,
                                 std::span<const chunk::DiskMap* const> have, std::stop_token stop) {
  MapFetch fetch(client, manifest.disk_bytes);
  if (auto ok = fetch.take_known(manifest, known_groups(have)); !ok) return fail(std::move(ok.error()));
  if (auto ok = fetch.fetch_rest(stop); !ok) return fail(std::move(ok.error()));
  if (const auto found = fetch.map().data_bytes(); found != manifest.data_bytes) {
    return fail(ErrorCode::corrupt, "the manifest says " + std::to_string(manifest.data_bytes) +
                                        " bytes of data, its groups hold " + std::to_string(found));
  }
  return std::move(fetch.map());
}

}  // namespace educloud::transfer
