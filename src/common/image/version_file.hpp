#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "common/image/version_store.hpp"

// Private to common/image: what one version looks like on disk (version_store.cpp does the moving).
namespace educloud::image {

/// info.json:
/// {"v":1,"image","version","digest","size_bytes","virtual_size_bytes","format","parent","created_at"}.
std::string format_version_info(const VersionInfo& info);
/// Errors: corrupt naming the key.
Result<VersionInfo> parse_version_info(std::string_view json);

/// Digest, format, sizes and parent as publish() demands them. Errors: invalid_argument.
Result<> check_version_info(const VersionInfo& info);

/// Reads <directory>/info.json and checks that <directory>/machine has the length it says.
/// Errors: not_found (either file is missing), corrupt.
Result<VersionInfo> read_version_dir(const std::filesystem::path& directory);

/// A staged file before it is moved in: an ordinary file of exactly `size_bytes`, now fsynced.
/// Errors: not_found, invalid_argument (a link or device), corrupt (length), internal.
Result<> check_and_sync_machine(const std::filesystem::path& path, std::uint64_t size_bytes);

/// A refused name as it may be shown: cut, control characters replaced.
std::string printable_name(std::string_view name);

}  // namespace educloud::image
