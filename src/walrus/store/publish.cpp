#include "walrus/store/publish.hpp"

#include <algorithm>
#include <set>
#include <unordered_map>

#include "common/base/ids.hpp"
#include "common/base/random.hpp"
#include "common/sys/file.hpp"
#include "walrus/store/catalogue.hpp"

namespace educloud::walrus {
namespace {

using chunk::ChunkId;

constexpr std::uint64_t kSectorBytes = 512;
constexpr std::size_t kLookupIds = 4096;

std::string name_of(const std::string& imgid, int version) {
  return "image " + imgid + " version " + std::to_string(version);
}

/// Groups that mean the same in both disks, so that what was proven of one holds for the other.
std::set<std::uint32_t> same_groups(const chunk::Manifest& a, const chunk::Manifest& b) {
  std::set<std::uint32_t> same;
  auto other = b.groups.begin();
  for (const auto& ref : a.groups) {
    while (other != b.groups.end() && other->index < ref.index) ++other;
    if (other == b.groups.end()) break;
    const std::uint64_t end = (std::uint64_t{ref.index} + 1) * chunk::kGroupBytes;
    const bool same_length = a.disk_bytes == b.disk_bytes || (end <= a.disk_bytes && end <= b.disk_bytes);
    if (*other == ref && same_length) same.insert(ref.index);
  }
  return same;
}

}  // namespace

Result<> check_disk_size(std::uint64_t disk_bytes, std::uint64_t max_disk_bytes) {
  if (disk_bytes == 0) return fail(ErrorCode::corrupt, "the disk has no bytes", "disk_bytes");
  if (disk_bytes % kSectorBytes != 0) {
    return fail(ErrorCode::corrupt,
                "the disk has " + std::to_string(disk_bytes) + " bytes, which are no whole sectors of 512",
                "disk_bytes");
  }
  if (disk_bytes > max_disk_bytes) {
    return fail(ErrorCode::too_large,
                "the disk has " + std::to_string(disk_bytes) + " bytes, more than the limit of " +
                    std::to_string(max_disk_bytes),
                "disk_bytes");
  }
  return {};
}

Result<transfer::Receipt> Publisher::receipt_of(const std::string& imgid, int version,
                                                const std::string& cmdid) const {
  auto info = versions_.find(imgid, version);
  if (!info) return fail(info.error());
  return transfer::Receipt{imgid,
                           version,
                           info->digest,
                           static_cast<std::int64_t>(info->size_bytes),
                           static_cast<std::int64_t>(info->virtual_size_bytes),
                           info->format,
                           info->parent,
                           cmdid};
}

/// `places`: which chunk of the disk each id is.
Result<> Publisher::check_chunks(const chunk::Manifest& manifest, std::span<const std::uint64_t> places,
                                 std::span<const ChunkId> ids) {
  auto missing = chunks_.missing(ids, true);
  if (!missing) return fail(missing.error());
  const auto count = std::count(missing->begin(), missing->end(), true);
  if (count > 0) {
    const auto first = static_cast<std::size_t>(
        std::distance(missing->begin(), std::find(missing->begin(), missing->end(), true)));
    return fail(ErrorCode::corrupt, "the store lacks " + std::to_string(count) +
                                        " chunks of this disk, first " + ids[first].hex() + " at byte " +
                                        std::to_string(places[first] * chunk::kChunkBytes) +
                                        ": send them again");
  }
  auto found = chunks_.find(ids);
  if (!found) return fail(found.error());
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const auto& slice = (*found)[i];
    if (!slice) return fail(ErrorCode::corrupt, "the store lacks chunk " + ids[i].hex() + ": send it again");
    const auto want = chunk::chunk_length(manifest.disk_bytes, places[i]);
    if (slice->raw_bytes == want) continue;
    return fail(ErrorCode::corrupt, "chunk " + ids[i].hex() + " has " + std::to_string(slice->raw_bytes) +
                                        " bytes where the disk has " + std::to_string(want) + " (byte " +
                                        std::to_string(places[i] * chunk::kChunkBytes) + ")");
  }
  return {};
}

Result<> Publisher::check_complete(const chunk::Manifest& manifest, const std::string& parent,
                                   std::stop_token stop) {
  // What the parent's publication proved need not be looked up again.
  std::set<std::uint32_t> proven;
  if (const auto slash = parent.find('/'); slash != std::string::npos) {
    const auto imgid = parent.substr(0, slash);
    const int version = std::atoi(parent.c_str() + slash + 1);
    const auto folder = versions_.file_path(imgid, version, "manifest").parent_path();
    auto base = read_manifest({imgid, version, folder});
    if (base) proven = same_groups(manifest, *base);
  }
  std::uint64_t data_bytes = 0;
  std::vector<std::uint64_t> places;
  std::vector<ChunkId> ids;
  // A disk may repeat one group a million times.
  std::unordered_map<ChunkId, std::uint64_t, chunk::ChunkIdHash> seen;
  for (const auto& ref : manifest.groups) {
    if (stop.stop_requested()) return fail(ErrorCode::cancelled, "publishing was stopped");
    const bool is_whole = (std::uint64_t{ref.index} + 1) * chunk::kGroupBytes <= manifest.disk_bytes;
    if (const auto again = seen.find(ref.id); is_whole && again != seen.end()) {
      data_bytes += again->second;
      continue;
    }
    auto group = read_group(chunks_, manifest.disk_bytes, ref);
    if (!group) {
      // Whatever is wrong with it, whoever publishes has to send it.
      const bool is_theirs = group.error().code == ErrorCode::not_found;
      return fail(Error{is_theirs ? ErrorCode::corrupt : group.error().code, group.error().message});
    }
    std::uint64_t bytes = 0;
    for (std::uint32_t i = 0; i < chunk::kGroupChunks; ++i) {
      if (group->chunks[i].is_hole()) continue;
      const std::uint64_t place = std::uint64_t{ref.index} * chunk::kGroupChunks + i;
      bytes += chunk::chunk_length(manifest.disk_bytes, place);
      if (proven.contains(ref.index)) continue;
      places.push_back(place);
      ids.push_back(group->chunks[i]);
    }
    data_bytes += bytes;
    if (is_whole) seen.emplace(ref.id, bytes);
    if (ids.size() < kLookupIds) continue;
    if (auto ok = check_chunks(manifest, places, ids); !ok) return ok;
    places.clear();
    ids.clear();
  }
  if (!ids.empty()) {
    if (auto ok = check_chunks(manifest, places, ids); !ok) return ok;
  }
  if (data_bytes == manifest.data_bytes) return {};
  return fail(ErrorCode::corrupt, "the manifest says " + std::to_string(manifest.data_bytes) +
                                      " bytes of data, its groups hold " + std::to_string(data_bytes));
}

Result<> Publisher::check_current(const PublishRequest& request) const {
  if (request.if_current.empty()) return {};
  auto current = versions_.current(request.imgid);
  if (!current) return fail(current.error());
  const auto in_use = *current ? transfer::make_parent(request.imgid, **current) : std::string("none");
  if (in_use == request.if_current) return {};
  return fail(
      ErrorCode::conflict,
      "the version in use is " + in_use + ", but this was made from " + request.if_current +
          ": somebody submitted in between. Nothing is lost: submit again to replace it (it stays in the "
          "list of versions), or cancel",
      "if_current");
}

Result<> Publisher::write(const PublishRequest& request, const chunk::Manifest& manifest,
                          const std::string& digest) {
  auto staged = versions_.staging("publish-" + request.imgid + "-" + std::to_string(request.version) + "-" +
                                  random_hex(6));
  if (!staged) return fail(staged.error());
  image::VersionInfo info;
  info.image = request.imgid;
  info.version = request.version;
  info.digest = digest;
  info.size_bytes = manifest.data_bytes;
  info.virtual_size_bytes = manifest.disk_bytes;
  info.format = "raw";
  info.parent = request.parent;
  auto done = sys::write_file_atomically(*staged, request.manifest, 0600);
  if (done) done = versions_.publish(*staged, info);
  if (!done) {
    std::error_code ignored;
    std::filesystem::remove(*staged, ignored);
  }
  return done;
}

Result<> Publisher::use(const PublishRequest& request, bool is_repeat) {
  if (is_repeat || !request.take_into_use) {
    auto current = versions_.current(request.imgid);
    if (!current) return fail(current.error());
    if (*current && **current >= request.version) return {};
  }
  return versions_.set_current(request.imgid, request.version);
}

Result<transfer::Receipt> Publisher::publish(const PublishRequest& request, std::stop_token stop) {
  if (auto id = ImageId::parse(request.imgid); !id) return fail(id.error());
  for (const auto* parent : {&request.parent, &request.if_current}) {
    if (auto ok = transfer::check_parent(*parent); !ok) return fail(ok.error());
  }
  if (!request.cmdid.empty()) {
    if (auto id = CommandId::parse(request.cmdid); !id) return fail(id.error());
  }
  auto manifest = chunk::Manifest::decode(request.manifest);
  if (!manifest) return fail(manifest.error());
  if (auto ok = check_disk_size(manifest->disk_bytes, max_disk_bytes_); !ok) return fail(ok.error());
  // Over the bytes as they came: what is kept is what was named.
  const std::string digest = ChunkId::of(request.manifest).hex();

  auto have = versions_.find(request.imgid, request.version);
  const bool is_repeat = have && have->digest == digest;
  if (have && !is_repeat) {
    return fail(ErrorCode::conflict, name_of(request.imgid, request.version) +
                                         " is published already with digest " + have->digest + ", not " +
                                         digest);
  }
  if (!have && have.error().code != ErrorCode::not_found) return fail(have.error());
  if (!is_repeat) {
    // Once before the long part, so that a conflict is told at once; once more under the lock.
    if (auto ok = check_current(request); !ok) return fail(ok.error());
    if (auto ok = check_complete(*manifest, request.parent, stop); !ok) return fail(ok.error());
    if (auto ok = chunks_.flush(); !ok) return fail(ok.error());
  }
  const std::lock_guard lock(mutex_);
  if (!is_repeat) {
    if (auto ok = check_current(request); !ok) return fail(ok.error());
    if (auto ok = write(request, *manifest, digest); !ok) return fail(ok.error());
  }
  if (auto ok = use(request, is_repeat); !ok) return fail(ok.error());
  return receipt_of(request.imgid, request.version, request.cmdid);
}

}  // namespace educloud::walrus
