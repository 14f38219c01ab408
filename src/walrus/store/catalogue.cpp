#include "walrus/store/catalogue.hpp"

#include <algorithm>
#include <charconv>

#include "common/base/ids.hpp"
#include "common/sys/file.hpp"

namespace educloud::walrus {
namespace fs = std::filesystem;
namespace {

/// Names of the entries of `directory`; none if it is not there.
Result<std::vector<std::string>> names_in(const fs::path& directory) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator entry(directory, error), end; !error && entry != end; entry.increment(error)) {
    names.push_back(entry->path().filename().string());
  }
  if (error && error != std::errc::no_such_file_or_directory && error != std::errc::not_a_directory) {
    return fail(errno_error("list " + directory.string(), error.value()));
  }
  std::sort(names.begin(), names.end());
  return names;
}

/// 0: not the name of a version.
int version_number(const std::string& name) {
  int value = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), value);
  const bool ok = error == std::errc{} && end == name.data() + name.size() && value >= 1;
  return ok && std::to_string(value) == name ? value : 0;
}

/// The digest that info.json says.
Result<std::string> recorded_digest(const fs::path& folder) {
  auto text = sys::read_file(folder / "info.json", 64 * 1024);
  if (!text) return fail(text.error());
  const auto json = nlohmann::json::parse(*text, nullptr, false);
  const auto found = json.is_object() ? json.find("digest") : json.end();
  if (!json.is_object() || found == json.end() || !found->is_string()) {
    return fail(ErrorCode::corrupt, (folder / "info.json").string() + " has no digest");
  }
  return found->get<std::string>();
}

}  // namespace

fs::path chunk_folder(const fs::path& prefix) {
  return prefix / "chunks";
}

std::string VersionFolder::name() const {
  return imgid + "/" + std::to_string(version);
}

Result<std::vector<VersionFolder>> version_folders(const fs::path& prefix) {
  std::vector<VersionFolder> all;
  auto images = names_in(prefix / "images");
  if (!images) return fail(images.error());
  for (const auto& image : *images) {
    if (!ImageId::parse(image)) continue;
    const auto below = prefix / "images" / image / "versions";
    auto versions = names_in(below);
    if (!versions) return fail(versions.error());
    std::vector<int> numbers;
    for (const auto& name : *versions) {
      if (const int number = version_number(name); number > 0) numbers.push_back(number);
    }
    std::sort(numbers.begin(), numbers.end());
    for (const int number : numbers) {
      VersionFolder one{image, number, below / std::to_string(number)};
      std::error_code ignored;
      one.is_older_format =
          !fs::exists(one.folder / "manifest", ignored) && fs::exists(one.folder / "machine", ignored);
      all.push_back(std::move(one));
    }
  }
  return all;
}

Result<chunk::Manifest> read_manifest(const VersionFolder& version) {
  std::error_code error;
  const auto digest = recorded_digest(version.folder);
  auto text = sys::read_file(version.folder / "manifest", chunk::kMaxManifestBytes);
  if (!digest || !text) {
    // Versions go by being renamed away: then all of it is gone.
    if (!fs::exists(version.folder, error))
      return fail(ErrorCode::not_found, version.name() + " was removed");
    const Error& what = digest ? text.error() : digest.error();
    return fail(ErrorCode::corrupt, version.name() + ": " + what.message);
  }
  const auto found = chunk::ChunkId::of(*text).hex();
  if (found != *digest) {
    return fail(ErrorCode::corrupt, (version.folder / "manifest").string() + " has digest " + found +
                                        ", info.json says " + *digest);
  }
  auto manifest = chunk::Manifest::decode(*text);
  if (!manifest) return fail(manifest.error(), version.name());
  return manifest;
}

Result<chunk::Group> read_group(chunk::ChunkStore& chunks, std::uint64_t disk_bytes,
                                const chunk::GroupRef& ref) {
  auto found = chunks.find(std::span(&ref.id, 1));
  if (!found) return fail(found.error());
  if (!found->front()) {
    return fail(ErrorCode::not_found,
                "group " + std::to_string(ref.index) + " (chunk " + ref.id.hex() + ") is not in the store");
  }
  auto frame = chunk::load(*found->front());
  if (!frame) return fail(frame.error());
  std::string raw(frame->header.raw_bytes, '\0');
  thread_local chunk::FrameDecoder decoder;
  if (auto ok = decoder.decode(frame->header, frame->stored, raw); !ok) return fail(ok.error());
  if (frame->header.id != ref.id) {
    return fail(ErrorCode::corrupt,
                "the store gave chunk " + frame->header.id.hex() + " for " + ref.id.hex());
  }
  return chunk::Group::decode(raw, chunk::chunks_in_group(disk_bytes, ref.index));
}

}  // namespace educloud::walrus
