#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "cli/init/options.hpp"
#include "cli/init/secrets.hpp"

namespace educloud::cli {

/// One file that init writes.
struct PlannedFile {
  std::filesystem::path path;
  std::string content;
  unsigned mode = 0644;
  bool keep = false;  ///< an administrator's file: not overwritten unless told so
};

/// The config file of every daemon, and for hosts elsewhere a bundle directory `<out>/<host>` with the config
/// and only the secrets that this host needs. A bundle's content is copied to the config directory of its
/// host. Pure.
std::vector<PlannedFile> plan_files(const InitPlan& plan, const Secrets& secrets);

/// The sshd of the shared folders: its configuration, whose keys it takes, and the key by which nodes know
/// it. Errors: corrupt (a key file).
Result<std::vector<PlannedFile>> plan_sftp_files(const InitPlan& plan, const Secrets& secrets);

/// Where walrus keeps its things.
std::filesystem::path walrus_prefix(const InitPlan& plan);

/// The port on which a cc leads to that sshd.
int relay_port(const HostSpec& cluster);

/// Where clc keeps its database.
std::filesystem::path clc_state_dir(const InitPlan& plan);

}  // namespace educloud::cli
