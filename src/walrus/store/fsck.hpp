#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <stop_token>
#include <string>
#include <vector>

#include "common/base/result.hpp"

namespace educloud::walrus {

/// One thing that is not as it was stored.
struct FsckDamage {
  enum class Kind {
    chunk,     ///< a frame in a pack: flipped bits, or not what the index says
    group,     ///< a group (stored as a chunk) that is damaged, missing or no group
    missing,   ///< a chunk that a version needs and the store has not
    manifest,  ///< a version's manifest or info.json
  };
  Kind kind = Kind::chunk;
  std::string id;    ///< of the chunk or group, hex; manifest: the version's digest if known
  std::string pack;  ///< file name below <prefix>/chunks/packs; manifest: the file's path; missing: empty
  std::uint64_t offset = 0;           ///< of the frame in the pack
  std::string what;                   ///< for an operator
  std::vector<std::string> versions;  ///< "IMG01234567/3": what is hit; empty: nothing uses it
};
std::string_view to_string(FsckDamage::Kind kind);

struct FsckReport {
  std::uint64_t versions = 0;
  std::uint64_t frames = 0;               ///< read and proven or damaged
  std::vector<FsckDamage> damages;        ///< at most kMaxFsckDamages
  std::uint64_t damage_count = 0;         ///< also those beyond
  std::vector<std::string> older_format;  ///< versions from before images were chunked: not looked into
  bool is_clean() const { return damage_count == 0; }
};
inline constexpr std::size_t kMaxFsckDamages = 10'000;

struct FsckOptions {
  std::filesystem::path prefix;
  /// Of the frames in the packs; a few times a second.
  std::function<void(std::uint64_t bytes_done, std::uint64_t bytes_total)> on_bytes = {};
};

/// Reads every frame of every pack, unpacks it and proves its SHA-256; then every version's manifest, its
/// groups and the presence of its chunks. Changes nothing, also beside a running walrus (what is published or
/// swept meanwhile may be left out). Memory: 32 bytes a chunk of the largest version and the damages.
/// Errors: not_found (no such prefix), corrupt (index unreadable), cancelled, internal. Damage is no Error.
Result<FsckReport> fsck(const FsckOptions& options, std::stop_token stop = {});

}  // namespace educloud::walrus
