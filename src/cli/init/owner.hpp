#pragma once

#include <sys/types.h>

#include <filesystem>
#include <optional>
#include <string>

#include "cli/init/options.hpp"

namespace educloud::cli {

/// The system user that the packages' units run clc and cc as.
constexpr const char* kServiceUser = "educloud";

/// The system user that the packages make for the shared folders: it owns nothing else, and may log in to
/// their SFTP server only.
constexpr const char* kFilesUser = "educloud-files";

/// The system user that gets what init makes for the daemons.
struct Owner {
  std::string name;
  uid_t uid = 0;
  gid_t gid = 0;  ///< his own group
};

/// The user `arguments.owner` names; if it names none, `kServiceUser` for root who sets up the packages'
/// directory /etc/educloud where that user exists; else nobody: files stay with who runs init.
/// Errors: invalid_argument (no such user), permission_denied (only root can give files away).
Result<std::optional<Owner>> find_owner(const InitArguments& arguments);

/// The system user that the shared folders belong to: `kFilesUser` where the packages made it and `owner` is
/// theirs, else who runs init.
std::string find_files_user(const std::optional<Owner>& owner);

/// Gives one ordinary file to the owner and leaves its mode; nothing to do without an owner. Follows no link
/// and refuses a file with a second name, because the owner may write to its directory.
Result<> give_file(const std::filesystem::path& path, const std::optional<Owner>& owner);

/// A directory that only the owner uses: his, mode 0700.
Result<> give_directory(const std::filesystem::path& path, const std::optional<Owner>& owner);

/// A directory of secrets: mode 0700, or with an owner 0750 with his group, so that he may read his own
/// files in it but not replace any.
Result<> guard_directory(const std::filesystem::path& path, const std::optional<Owner>& owner);

}  // namespace educloud::cli
