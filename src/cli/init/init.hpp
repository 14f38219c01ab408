#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "cli/init/options.hpp"

namespace educloud::cli {

/// What `run_init` did.
struct InitReport {
  std::filesystem::path definitions;           ///< import this into the broker
  std::filesystem::path database;              ///< empty with definitions_only
  std::vector<std::filesystem::path> written;  ///< config files and bundle files
  std::vector<std::filesystem::path> kept;     ///< config files that were there and differ
  std::vector<std::filesystem::path> bundles;  ///< directories to copy, one per host elsewhere
  bool admin_created = false;
  bool admin_password_set = false;  ///< false: the admin was there and keeps his password
  bool database_in_use =
      false;  ///< clc runs; nothing of the cloud's hosts changed, so its database was left alone
};

/// Asked only if a password is needed.
using AskPassword = std::function<Result<std::string>()>;

/// Makes everything a new cloud needs, or completes what is missing: secrets, broker definitions, config
/// files, bundles, clc's database with the hosts and the first admin. A second call with the same arguments
/// changes nothing. Errors: invalid_argument naming the option, or the file that cannot be written.
Result<InitReport> run_init(InitArguments arguments, const AskPassword& ask_password);

}  // namespace educloud::cli
