#include "walrus/store/fsck.hpp"

#include <map>

#include "common/sys/file.hpp"
#include "walrus/store/catalogue.hpp"

namespace educloud::walrus {
namespace {

using chunk::ChunkId;

/// One run of fsck.
class Check {
 public:
  Check(chunk::ChunkStore& chunks, const FsckOptions& options, std::stop_token stop)
      : chunks_(chunks), options_(options), stop_(std::move(stop)) {}

  Result<FsckReport> run();

 private:
  Result<> check_version(const VersionFolder& version);
  Result<> check_group(const VersionFolder& version, const chunk::Manifest& manifest,
                       const chunk::GroupRef& ref, std::uint64_t& data_bytes);
  void check_info(const VersionFolder& version, const chunk::Manifest& manifest);
  void hit(const ChunkId& id, const VersionFolder& version, FsckDamage::Kind kind, const std::string& what);
  void add(FsckDamage damage);

  chunk::ChunkStore& chunks_;
  const FsckOptions& options_;
  const std::stop_token stop_;
  FsckReport report_;
  std::map<ChunkId, std::size_t> known_;  ///< position in report_.damages
};

std::string manifest_path(const VersionFolder& version) {
  return (version.folder / "manifest").string();
}

void Check::add(FsckDamage damage) {
  ++report_.damage_count;
  if (report_.damages.size() < kMaxFsckDamages) report_.damages.push_back(std::move(damage));
}

/// `id` is damaged or missing, and `version` needs it.
void Check::hit(const ChunkId& id, const VersionFolder& version, FsckDamage::Kind kind,
                const std::string& what) {
  auto at = known_.find(id);
  if (at == known_.end()) {
    at = known_.emplace(id, report_.damages.size()).first;
    add({kind, id.hex(), {}, 0, what, {}});
  }
  if (at->second >= report_.damages.size()) return;
  auto& damage = report_.damages[at->second];
  if (kind == FsckDamage::Kind::group) damage.kind = kind;
  if (damage.versions.empty() || damage.versions.back() != version.name()) {
    damage.versions.push_back(version.name());
  }
}

void Check::check_info(const VersionFolder& version, const chunk::Manifest& manifest) {
  auto text = sys::read_file(version.folder / "info.json", 64 * 1024);
  const auto json = text ? nlohmann::json::parse(*text, nullptr, false) : nlohmann::json();
  const auto is = [&](const char* key, const nlohmann::json& value) {
    return json.is_object() && json.contains(key) && json[key] == value;
  };
  std::string wrong;
  if (!is("image", version.imgid)) wrong = "image";
  if (!is("version", version.version)) wrong = "version";
  if (!is("size_bytes", manifest.data_bytes)) wrong = "size_bytes";
  if (!is("virtual_size_bytes", manifest.disk_bytes)) wrong = "virtual_size_bytes";
  if (!is("format", "raw")) wrong = "format";
  if (wrong.empty()) return;
  add({FsckDamage::Kind::manifest,
       manifest.digest().hex(),
       (version.folder / "info.json").string(),
       0,
       "'" + wrong + "' is not what the manifest says",
       {version.name()}});
}

Result<> Check::check_group(const VersionFolder& version, const chunk::Manifest& manifest,
                            const chunk::GroupRef& ref, std::uint64_t& data_bytes) {
  auto group = read_group(chunks_, manifest.disk_bytes, ref);
  if (!group) {
    if (group.error().code == ErrorCode::internal) return fail(group.error());
    hit(ref.id, version, FsckDamage::Kind::group, group.error().message);
    return {};
  }
  std::vector<ChunkId> ids;
  std::vector<std::uint32_t> lengths;
  for (std::uint32_t i = 0; i < chunk::kGroupChunks; ++i) {
    if (group->chunks[i].is_hole()) continue;
    ids.push_back(group->chunks[i]);
    lengths.push_back(
        chunk::chunk_length(manifest.disk_bytes, std::uint64_t{ref.index} * chunk::kGroupChunks + i));
    data_bytes += lengths.back();
  }
  auto found = chunks_.find(ids);
  if (!found) return fail(found.error());
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (known_.contains(ids[i])) {
      hit(ids[i], version, FsckDamage::Kind::chunk, "");
    } else if (!(*found)[i]) {
      hit(ids[i], version, FsckDamage::Kind::missing, "not in the store");
    } else if ((*found)[i]->raw_bytes != lengths[i]) {
      hit(ids[i], version, FsckDamage::Kind::chunk,
          "holds " + std::to_string((*found)[i]->raw_bytes) + " bytes, the disk has " +
              std::to_string(lengths[i]) + " in its place");
    }
  }
  return {};
}

Result<> Check::check_version(const VersionFolder& version) {
  auto manifest = read_manifest(version);
  if (!manifest && manifest.error().code == ErrorCode::not_found) return {};  // removed meanwhile
  ++report_.versions;
  if (!manifest) {
    add({FsckDamage::Kind::manifest,
         {},
         manifest_path(version),
         0,
         manifest.error().message,
         {version.name()}});
    return {};
  }
  check_info(version, *manifest);
  std::uint64_t data_bytes = 0;
  const auto before = report_.damage_count;
  for (const auto& ref : manifest->groups) {
    if (stop_.stop_requested()) return fail(ErrorCode::cancelled, "fsck was stopped");
    if (auto ok = check_group(version, *manifest, ref, data_bytes); !ok) return ok;
  }
  // A damaged group says nothing of its size.
  if (report_.damage_count == before && known_.empty() && data_bytes != manifest->data_bytes) {
    add({FsckDamage::Kind::manifest,
         manifest->digest().hex(),
         manifest_path(version),
         0,
         "says " + std::to_string(manifest->data_bytes) + " bytes of data, its groups hold " +
             std::to_string(data_bytes),
         {version.name()}});
  }
  return {};
}

Result<FsckReport> Check::run() {
  const auto on_damage = [&](const chunk::Damage& damage) {
    known_.emplace(damage.id, report_.damages.size());
    add({FsckDamage::Kind::chunk, damage.id.hex(), damage.pack, damage.offset, damage.what, {}});
  };
  const auto on_bytes = [&](std::uint64_t done, std::uint64_t total) {
    if (options_.on_bytes) options_.on_bytes(done, total);
  };
  auto frames = chunks_.verify(on_damage, on_bytes, stop_);
  if (!frames) return fail(frames.error());
  report_.frames = *frames;
  auto versions = version_folders(options_.prefix);
  if (!versions) return fail(versions.error());
  for (const auto& version : *versions) {
    if (version.is_older_format) {
      report_.older_format.push_back(version.name());
    } else if (auto ok = check_version(version); !ok) {
      return fail(ok.error());
    }
  }
  return std::move(report_);
}

}  // namespace

std::string_view to_string(FsckDamage::Kind kind) {
  switch (kind) {
    case FsckDamage::Kind::chunk: return "chunk";
    case FsckDamage::Kind::group: return "group";
    case FsckDamage::Kind::missing: return "missing";
    case FsckDamage::Kind::manifest: return "manifest";
  }
  return "chunk";
}

Result<FsckReport> fsck(const FsckOptions& options, std::stop_token stop) {
  std::error_code error;
  if (!std::filesystem::exists(chunk_folder(options.prefix), error)) {
    return fail(ErrorCode::not_found, chunk_folder(options.prefix).string() + " is not there: is " +
                                          options.prefix.string() + " walrus' prefix?");
  }
  auto chunks = chunk::ChunkStore::open_read_only(chunk_folder(options.prefix));
  if (!chunks) return fail(chunks.error());
  return Check(**chunks, options, std::move(stop)).run();
}

}  // namespace educloud::walrus
