#include "common/image/version_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>

#include "common/base/ids.hpp"
#include "common/image/digest.hpp"
#include "common/image/inspector.hpp"

namespace educloud::image {
namespace {

constexpr std::uint64_t kMaxSize = 9'000'000'000'000'000;  // fits JSON numbers and std::int64_t
constexpr std::size_t kMaxCompanions = 8;
constexpr int kMaxVersion = 1'000'000'000;

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

/// Payload and files; both or neither are there.
Result<> take_files(const nlohmann::json& object, VersionRecord& record) {
  if (!object.contains("files")) {
    record.payload = "machine";
    record.files = {{record.payload, record.info.size_bytes}};
    return {};
  }
  auto payload = member<std::string>(object, "payload");
  if (!payload) return fail(payload.error());
  const auto& files = object["files"];
  if (!files.is_object() || files.size() > kMaxCompanions + 1) {
    return fail(ErrorCode::corrupt, "info.json: 'files' is not an object of at most 9 files", "files");
  }
  for (const auto& [name, length] : files.items()) {
    if (!is_file_name(name) || !length.is_number_integer() || length < 0 || length > kMaxSize) {
      return fail(ErrorCode::corrupt, "info.json: 'files' has a wrong name or length", "files");
    }
    record.files[name] = length.get<std::uint64_t>();
  }
  if (!record.files.contains(*payload)) {
    return fail(ErrorCode::corrupt, "info.json: 'files' lacks the payload", "files");
  }
  record.payload = std::move(*payload);
  return {};
}

}  // namespace

std::string format_version_record(const VersionRecord& record) {
  const auto& info = record.info;
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
  object["stands_on"] = info.stands_on;
  object["payload"] = record.payload;
  object["files"] = record.files;
  return object.dump(2) + "\n";
}

Result<VersionRecord> parse_version_record(std::string_view json) {
  const auto object = nlohmann::json::parse(json, nullptr, false);
  if (!object.is_object()) return fail(ErrorCode::corrupt, "info.json is not a JSON object");
  VersionRecord record;
  auto& info = record.info;
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
  if (object.contains("stands_on") && !take("stands_on", info.stands_on)) return fail(error);
  if (auto ok = check_version_info(info); !ok)
    return fail(ErrorCode::corrupt, "info.json: " + ok.error().message);
  if (auto ok = take_files(object, record); !ok) return fail(ok.error());
  return record;
}

Result<> check_version_info(const VersionInfo& info) {
  if (!is_sha256_hex(info.digest)) {
    return fail(ErrorCode::invalid_argument, "digest is not 64 lower-case hex digits", "digest");
  }
  if (info.format != "qcow2" && info.format != "raw") {
    return fail(ErrorCode::invalid_argument,
                "format '" + printable_name(info.format) + "' is not qcow2 or raw", "format");
  }
  if (info.size_bytes > kMaxSize || info.virtual_size_bytes > kMaxSize) {
    return fail(ErrorCode::invalid_argument, "size_bytes is out of range", "size_bytes");
  }
  if (info.parent.size() > 64 || printable_name(info.parent) != info.parent) {
    return fail(ErrorCode::invalid_argument, "parent is not <imgid>/<version>", "parent");
  }
  if (!info.stands_on.empty()) {
    const auto slash = std::min(info.stands_on.find('/'), info.stands_on.size() - 1);
    const auto text = std::string_view(info.stands_on);
    if (!ImageId::parse(text.substr(0, slash)) || !parse_version(text.substr(slash + 1))) {
      return fail(ErrorCode::invalid_argument, "stands_on is not <imgid>/<version>", "stands_on");
    }
    if (text == version_key(info.image, info.version))
      return fail(ErrorCode::invalid_argument, "a version can not stand on itself", "stands_on");
  }
  return {};
}

bool is_file_name(std::string_view name) {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
  };
  return !name.empty() && name.size() <= 40 && name[0] >= 'a' && name[0] <= 'z' && name != "info.json" &&
         std::all_of(name.begin(), name.end(), allowed);
}

Result<> check_companions(const Companions& companions, std::string_view payload) {
  if (companions.size() > kMaxCompanions) {
    return fail(ErrorCode::invalid_argument, "a version has at most 8 companions", "companions");
  }
  for (const auto& [name, content] : companions) {
    if (!is_file_name(name) || name == payload) {
      return fail(ErrorCode::invalid_argument,
                  "a file of a version can not be named '" + printable_name(name) + "'", "companions");
    }
  }
  return {};
}

Result<> check_key(std::string_view image, int version) {
  if (auto id = ImageId::parse(image); !id) return fail(id.error());
  if (version < 1 || version > kMaxVersion) {
    return fail(ErrorCode::invalid_argument, "version " + std::to_string(version) + " is not in 1..1e9",
                "version");
  }
  return {};
}

std::string key_text(std::string_view image, int version) {
  return std::string(image) + " version " + std::to_string(version);
}

std::string version_key(std::string_view image, int version) {
  return std::string(image) + "/" + std::to_string(version);
}

std::optional<int> parse_version(std::string_view text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool ok =
      error == std::errc{} && end == text.data() + text.size() && value >= 1 && value <= kMaxVersion;
  if (!ok || std::to_string(value) != text) return std::nullopt;
  return value;
}

Result<VersionRecord> read_version_dir(const std::filesystem::path& directory) {
  auto text = sys::read_file(directory / "info.json", 64 * 1024);
  if (!text) return fail(text.error());
  auto record = parse_version_record(*text);
  if (!record) return fail(record.error(), directory.string());
  for (const auto& [name, length] : record->files) {
    struct stat file {};
    const auto path = directory / name;
    if (::lstat(path.c_str(), &file) != 0) return fail(errno_error("stat " + path.string(), errno));
    if (!S_ISREG(file.st_mode) || static_cast<std::uint64_t>(file.st_size) != length) {
      return fail(ErrorCode::corrupt, path.string() + " has " + std::to_string(file.st_size) +
                                          " bytes, not " + std::to_string(length) +
                                          ": remove this version and fetch it again");
    }
  }
  return record;
}

std::uint64_t allocated_in(const std::filesystem::path& directory) {
  std::uint64_t sum = 0;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(directory, error), end; !error && entry != end;
       entry.increment(error)) {
    struct stat file {};
    if (::lstat(entry->path().c_str(), &file) == 0) sum += static_cast<std::uint64_t>(file.st_blocks) * 512;
  }
  return sum;
}

Result<std::uint64_t> check_and_sync_payload(const std::filesystem::path& path) {
  auto fd = sys::open_file(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  if (!fd) return fail(fd.error());
  struct stat info {};
  if (::fstat(fd->get(), &info) != 0) return fail(errno_error("stat " + path.string(), errno));
  if (!S_ISREG(info.st_mode))
    return fail(ErrorCode::invalid_argument, path.string() + " is not an ordinary file");
  if (::fsync(fd->get()) != 0) return fail(errno_error("fsync " + path.string(), errno));
  return static_cast<std::uint64_t>(info.st_size);
}

Result<> make_durable(const std::filesystem::path& directory, const std::string& payload) {
  const auto file = directory / payload;
  if (::chmod(file.c_str(), 0444) != 0) return fail(errno_error("chmod " + file.string(), errno));
  if (auto done = sys::sync_path(file); !done) return done;
  return sys::sync_path(directory);
}

std::string printable_name(std::string_view name) {
  return printable(name);
}

}  // namespace educloud::image
