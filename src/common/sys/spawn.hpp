#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string_view>

#include "common/base/result.hpp"

// Private to common/sys: the fork and exec under process.cpp.
namespace educloud::sys {

/// Everything the child needs, worked out before the fork: afterwards only async-signal-safe calls
/// are allowed (another thread may have held malloc's lock). The pointers must outlive spawn().
struct SpawnPlan {
  const char* program = nullptr;  ///< path
  char* const* argv = nullptr;
  char* const* environment = nullptr;
  int stdin_fd = -1, stdout_fd = -1, stderr_fd = -1;  ///< all above 2, close-on-exec
  int fault_fd = -1;  ///< the child tells here which step failed; closes by exec
  bool switch_user = false;
  uid_t uid = 0;
  gid_t gid = 0;
  bool new_network = false;
  std::uint64_t address_space_limit = 0;
  std::uint64_t cpu_seconds_limit = 0;
  std::uint64_t file_size_limit = 0;
  const char* working_directory = nullptr;  ///< null: stays
};

/// Forks and executes the plan in a process group of its own.
/// Errors: internal or exhausted from fork. What fails in the child comes through `fault_fd`.
Result<pid_t> spawn(const SpawnPlan& plan);

/// What the child wrote to `fault_fd`, as an Error; nullopt if it wrote nothing (exec worked).
std::optional<Error> spawn_fault(std::string_view written);

}  // namespace educloud::sys
