#include "common/image/version_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "common/image/digest.hpp"
#include "common/image/inspector.hpp"

namespace educloud::image {
namespace {

constexpr std::uint64_t kMaxSize = 9'000'000'000'000'000;  // fits JSON numbers and std::int64_t

template <class T>
Result<T> member(const nlohmann::json& object, const char* key) {
  const auto found = object.find(key);
  constexpr bool kText = std::is_same_v<T, std::string>;
  if (found == object.end() || (kText ? !found->is_string() : !found->is_number_integer())) {
    return fail(ErrorCode::corrupt, std::string("info.json: '") + key + "' is missing or of the wrong type",
                key);
  }
  if constexpr (!kText) {
    if (*found < 0 || *found > kMaxSize)
      return fail(ErrorCode::corrupt, std::string("info.json: '") + key + "' out of range", key);
  }
  return found->template get<T>();
}

}  // namespace

std::string format_version_info(const VersionInfo& info) {
  nlohmann::json object;
  object["v"] = 1;
  object["image"] = info.image;
  object["version"] = info.version;
  object["digest"] = info.digest;
  object["size_bytes"] = info.size_bytes;
  object["virtual_size_bytes"] = info.virtual_size_bytes;
  object["format"] = info.format;
  object["parent"] = info.parent;
  object["created_at"] = info.created_at;
  return object.dump(2) + "\n";
}

Result<VersionInfo> parse_version_info(std::string_view json) {
  const auto object = nlohmann::json::parse(json, nullptr, false);
  if (!object.is_object()) return fail(ErrorCode::corrupt, "info.json is not a JSON object");
  VersionInfo info;
  Error error;
  const auto take = [&]<class T>(const char* key, T& into) {
    auto value = member<T>(object, key);
    if (!value) error = value.error();
    if (value) into = std::move(*value);
    return value.has_value();
  };
  if (!take("image", info.image) || !take("version", info.version) || !take("digest", info.digest) ||
      !take("size_bytes", info.size_bytes) || !take("virtual_size_bytes", info.virtual_size_bytes) ||
      !take("format", info.format) || !take("parent", info.parent) || !take("created_at", info.created_at)) {
    return fail(error);
  }
  if (auto ok = check_version_info(info); !ok)
    return fail(ErrorCode::corrupt, "info.json: " + ok.error().message);
  return info;
}

Result<> check_version_info(const VersionInfo& info) {
  if (!is_sha256_hex(info.digest)) {
    return fail(ErrorCode::invalid_argument, "digest is not 64 lower-case hex digits", "digest");
  }
  if (info.format != "qcow2" && info.format != "raw") {
    return fail(ErrorCode::invalid_argument,
                "format '" + printable_name(info.format) + "' is not qcow2 or raw", "format");
  }
  if (info.size_bytes == 0 || info.size_bytes > kMaxSize || info.virtual_size_bytes > kMaxSize) {
    return fail(ErrorCode::invalid_argument, "size_bytes is 0 or out of range", "size_bytes");
  }
  if (info.parent.size() > 64 || printable_name(info.parent) != info.parent) {
    return fail(ErrorCode::invalid_argument, "parent is not <imgid>/<version>", "parent");
  }
  return {};
}

Result<VersionInfo> read_version_dir(const std::filesystem::path& directory) {
  auto text = sys::read_file(directory / "info.json", 64 * 1024);
  if (!text) return fail(text.error());
  auto info = parse_version_info(*text);
  if (!info) return fail(info.error(), directory.string());
  struct stat machine {};
  const auto path = directory / "machine";
  if (::lstat(path.c_str(), &machine) != 0) return fail(errno_error("stat " + path.string(), errno));
  if (!S_ISREG(machine.st_mode) || static_cast<std::uint64_t>(machine.st_size) != info->size_bytes) {
    return fail(ErrorCode::corrupt, path.string() + " has " + std::to_string(machine.st_size) +
                                        " bytes, not " + std::to_string(info->size_bytes) +
                                        ": remove this version and fetch it again");
  }
  return info;
}

Result<> check_and_sync_machine(const std::filesystem::path& path, std::uint64_t size_bytes) {
  auto fd = sys::open_file(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  if (!fd) return fail(fd.error());
  struct stat info {};
  if (::fstat(fd->get(), &info) != 0) return fail(errno_error("stat " + path.string(), errno));
  if (!S_ISREG(info.st_mode))
    return fail(ErrorCode::invalid_argument, path.string() + " is not an ordinary file");
  if (static_cast<std::uint64_t>(info.st_size) != size_bytes) {
    return fail(ErrorCode::corrupt, path.string() + " has " + std::to_string(info.st_size) + " bytes, not " +
                                        std::to_string(size_bytes));
  }
  if (::fsync(fd->get()) != 0) return fail(errno_error("fsync " + path.string(), errno));
  return {};
}

std::string printable_name(std::string_view name) {
  return printable(name);
}

}  // namespace educloud::image
