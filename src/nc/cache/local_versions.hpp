#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/base/clock.hpp"
#include "common/chunk/manifest.hpp"
#include "common/image/qcow2_layer.hpp"
#include "common/image/version_store.hpp"
#include "nc/cache/fill_plan.hpp"
#include "nc/domain/vm_spec.hpp"

namespace educloud::nc {

using VersionKey = std::pair<std::string, int>;
/// "<imgid>/<version>". nullopt: not of that form.
std::optional<VersionKey> parse_version_key(std::string_view text);

/// The versions on this node and who needs them. Thread-safe.
class LocalVersions {
 public:
  static constexpr const char* kManifestFile = "manifest";

  LocalVersions(image::VersionStore& store, const Clock& clock) : store_(store), clock_(clock) {}
  image::VersionStore& store() { return store_; }

  /// A version and what it stands on, top first. Errors: not_found, corrupt (a ring, too deep).
  Result<std::vector<image::VersionInfo>> chain(const std::string& imgid, int version) const;
  Result<std::vector<DiskLayer>> layers(const std::string& imgid, int version) const;
  Result<image::LayeredDisk> open_disk(const std::string& imgid, int version) const;
  /// Errors: not_found, corrupt.
  Result<chunk::DiskMap> map(const std::string& imgid, int version) const;
  /// Only its upper level: small.
  Result<chunk::Manifest> root(const std::string& imgid, int version) const;

  /// A version that a new one may be made from, with its map.
  struct Candidate {
    BaseVersion base;
    chunk::DiskMap map;
  };
  /// The versions most like `wanted`, best first, at most `max`. Broken ones are left out.
  std::vector<Candidate> similar(const std::string& imgid, const chunk::Manifest& wanted, std::size_t max);

  /// Keeps a version as it is (neither removed nor replaced) while it lives.
  class Lease {
   public:
    Lease(LocalVersions& local, VersionKey key);
    ~Lease();
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;

   private:
    LocalVersions& local_;
    const VersionKey key_;
  };
  /// It was just handed out: whoever got it has a minute to say that it uses it.
  void handed_out(const std::string& imgid, int version);
  void set_in_use(std::set<VersionKey> versions);

  /// Least recently used first, until `wanted` bytes are free or none is left.
  void make_room(std::uint64_t wanted);
  /// Versions on more than `max_layers` layers that may be flattened now.
  std::vector<image::VersionInfo> too_deep(std::size_t max_layers);
  /// Puts `staged`, a raw disk, in the place of a version. Errors: conflict if somebody needs it by now.
  Result<> replace(const std::filesystem::path& staged, const image::VersionInfo& info,
                   const image::Companions& companions);

 private:
  bool is_needed(const VersionKey& key, const std::vector<image::VersionInfo>& all);

  image::VersionStore& store_;
  const Clock& clock_;
  /// Held over removing and replacing, so that nobody begins to need a version meanwhile.
  std::mutex mutex_;
  std::set<VersionKey> in_use_;
  std::map<VersionKey, int> leased_;
  std::map<VersionKey, std::int64_t> handed_out_ms_;  ///< boot_ms
};

}  // namespace educloud::nc
