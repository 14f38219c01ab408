#include <fcntl.h>

#include "cc/relay/chunk_relay.hpp"
#include "common/chunk/manifest.hpp"
#include "common/obs/log.hpp"

namespace educloud::cc {
namespace {

constexpr const char* kPayload = "manifest";

}  // namespace

Result<std::string> ManifestCache::find(const std::string& imgid, int version) {
  auto info = versions_.find(imgid, version);
  if (!info) return fail(info.error());
  auto text = sys::read_file(versions_.file_path(imgid, version, kPayload), chunk::kMaxManifestBytes);
  auto manifest = text ? chunk::Manifest::decode(*text) : Result<chunk::Manifest>(fail(text.error()));
  if (manifest && manifest->digest().hex() == info->digest) {
    versions_.touch(imgid, version);
    return text;
  }
  // Damaged, or from a release that cached whole files: it is only a cache.
  obs::warn("manifest.dropped",
            {{"imgid", imgid},
             {"version", version},
             {"error", manifest ? std::string("wrong digest") : manifest.error().message}});
  (void)versions_.remove(imgid, version);
  return fail(ErrorCode::not_found, "the manifest of image " + imgid + " version " + std::to_string(version) +
                                        " is not in the cache");
}

Result<> ManifestCache::put(const std::string& imgid, int version, const std::string& encoded,
                            const std::string& parent) {
  auto manifest = chunk::Manifest::decode(encoded);
  if (!manifest) return fail(manifest.error());
  image::VersionInfo info;
  info.image = imgid;
  info.version = version;
  info.digest = manifest->digest().hex();
  info.size_bytes = manifest->data_bytes;
  info.virtual_size_bytes = manifest->disk_bytes;
  info.format = "raw";
  info.parent = parent;
  auto staged = versions_.staging("manifest-" + imgid + "-" + std::to_string(version) + "-" +
                                  info.digest.substr(0, 16));
  if (!staged) return fail(staged.error());
  make_room();
  if (auto ok = sys::write_file_atomically(*staged, encoded); !ok) return ok;
  return versions_.publish(*staged, std::move(info));
}

std::string ManifestCache::digest(const std::string& imgid, int version) const {
  auto info = versions_.find(imgid, version);
  return info ? info->digest : std::string();
}

std::vector<image::VersionInfo> ManifestCache::list() const {
  auto all = versions_.list();
  return all ? *all : std::vector<image::VersionInfo>{};
}

void ManifestCache::make_room() {
  auto oldest = versions_.eviction_candidates();
  if (!oldest || oldest->size() < kMaxVersions) return;
  for (std::size_t i = 0; i + kMaxVersions <= oldest->size(); ++i) {
    (void)versions_.remove((*oldest)[i].info.image, (*oldest)[i].info.version);
  }
}

}  // namespace educloud::cc
