#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "common/base/result.hpp"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace educloud::cli {

struct Context;

/// --autostart and --no-autostart. Not given: not said, which is something else than no.
CLI::Option* add_autostart(CLI::App& command, std::optional<bool>& autostart);
/// --folders virtiofs|smb; not given: empty.
void add_folders(CLI::App& command, std::string& folders);

/// What `vm set` was told; empty and 0: not given.
struct VmSetArguments {
  std::string insid, name, folders;
  std::optional<bool> autostart;
  std::string cluster, node;  ///< a host, or "any"
  std::string vmtype, version;
  std::int64_t memory_mib = 0;
  int cpus = 0;
};
/// The body of its PATCH. Errors: invalid_argument (nothing given, or a version that is none).
Result<nlohmann::json> vm_change(const VmSetArguments& arguments);
/// True if a VM that runs goes on without what `change` says, until its next start.
bool waits_for_start(const nlohmann::json& change);

void add_vm_set_command(CLI::App& vm, Context& context);

}  // namespace educloud::cli
