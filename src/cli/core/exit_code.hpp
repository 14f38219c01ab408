#pragma once

#include "common/base/result.hpp"

namespace educloud::cli {

/// What the program ends with; documented in docs/cli.md and in --help.
enum class ExitCode {
  ok = 0,
  task_failed = 1,      ///< the cloud did what was asked, and it failed
  usage = 2,            ///< a wrong command line or an argument the cloud refuses
  unauthenticated = 3,  ///< not logged in, wrong password, or no right
  not_found = 4,
  conflict = 5,     ///< the object's state does not allow it
  unavailable = 6,  ///< the cloud does not answer, or a time limit passed
  exhausted = 7,    ///< no capacity: disk, memory, quota, size limit
  internal = 8,     ///< a defect, here or there
  interrupted = 130,
};

/// The only mapping of errors to exit codes.
ExitCode exit_code(ErrorCode code);

}  // namespace educloud::cli
