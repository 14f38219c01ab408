#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "common/image/version_store.hpp"

// Private to common/image: what one version looks like on disk (version_store.cpp does the moving).
namespace educloud::image {

/// What info.json says.
struct VersionRecord {
  VersionInfo info;
  std::string payload;                         ///< name of the file that makes the version
  std::map<std::string, std::uint64_t> files;  ///< all but info.json: name -> length
};

/// info.json:
/// {"v":1,"image","version","digest","size_bytes","virtual_size_bytes","format","parent","created_at",
///  "stands_on","payload","files":{name:length}}.
std::string format_version_record(const VersionRecord& record);
/// Before there were chunks the last three did not exist: payload machine, of size_bytes.
/// Errors: corrupt naming the key.
Result<VersionRecord> parse_version_record(std::string_view json);

/// Digest, format, sizes, parent and stands_on as publish() demands them. Errors: invalid_argument.
Result<> check_version_info(const VersionInfo& info);
/// Errors: invalid_argument.
Result<> check_companions(const Companions& companions, std::string_view payload);
/// 1..40 of [a-z0-9._-], the first a letter, not info.json.
bool is_file_name(std::string_view name);

/// An image id and a version's number. Errors: invalid_argument.
Result<> check_key(std::string_view image, int version);
/// "<imgid>/<version>".
std::string version_key(std::string_view image, int version);
/// For messages.
std::string key_text(std::string_view image, int version);
/// 1..1e9, one spelling only: "07" is no version.
std::optional<int> parse_version(std::string_view text);

/// Reads <directory>/info.json and checks that each file it names is there and has its length.
/// Errors: not_found (a file is missing), corrupt.
Result<VersionRecord> read_version_dir(const std::filesystem::path& directory);
/// Bytes that a version's files occupy.
std::uint64_t allocated_in(const std::filesystem::path& directory);

/// A staged file before it is moved in: an ordinary file, now fsynced. Returns its length.
/// Errors: not_found, invalid_argument (a link or device), internal.
Result<std::uint64_t> check_and_sync_payload(const std::filesystem::path& path);

/// A version's directory with all its files in it: payload 0444, both synced.
Result<> make_durable(const std::filesystem::path& directory, const std::string& payload);

/// A refused name as it may be shown: cut, control characters replaced.
std::string printable_name(std::string_view name);

}  // namespace educloud::image
