#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "cli/init/options.hpp"
#include "cli/init/owner.hpp"

namespace educloud::cli {

/// Every secret of a cloud, as hex text. They live in files of mode 0600 in one directory
/// (`guard_directory`).
struct Secrets {
  std::filesystem::path directory;
  std::string data_key;                          ///< `data_key`
  std::map<std::string, std::string> passwords;  ///< by broker login: `broker-<login>.password`
  std::map<std::string, std::string> node_keys;  ///< by host name: `node-<name>.key`, derived from data_key

  std::string sftp_host_key;                       ///< `sftp_host_key`: private, OpenSSH's form
  std::map<std::string, std::string> folder_keys;  ///< by node: `folders-<node>.key`, the same form

  std::map<std::string, std::string> cc_folder_keys;  ///< by cluster that mounts them: `cc-folders-<cc>.key`

  static std::string cc_folder_key_file(const std::string& cluster) {
    return "cc-folders-" + cluster + ".key";
  }
  static std::string folder_key_file(const std::string& node) { return "folders-" + node + ".key"; }
  static std::string password_file(const std::string& login) { return "broker-" + login + ".password"; }
  static std::string node_key_file(const std::string& node) { return "node-" + node + ".key"; }
};

/// Reads the secrets that are there and makes those that are missing, so a second call changes nothing. All
/// of them are given to `owner`.
/// Errors: a file that others may read, or that cannot be written; never the secret itself.
Result<Secrets> load_or_make_secrets(const std::filesystem::path& directory, const InitPlan& plan,
                                     const std::optional<Owner>& owner);

/// A new password for a person: 20 letters and digits without look-alikes, about 115 bits.
std::string make_password();

}  // namespace educloud::cli
