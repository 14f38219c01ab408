#include "cli/core/exit_code.hpp"

namespace educloud::cli {

ExitCode exit_code(ErrorCode code) {
  switch (code) {
    case ErrorCode::invalid_argument: return ExitCode::usage;
    case ErrorCode::unauthenticated:
    case ErrorCode::permission_denied: return ExitCode::unauthenticated;
    case ErrorCode::not_found: return ExitCode::not_found;
    case ErrorCode::conflict: return ExitCode::conflict;
    case ErrorCode::too_large:
    case ErrorCode::exhausted: return ExitCode::exhausted;
    case ErrorCode::unavailable:
    case ErrorCode::timeout: return ExitCode::unavailable;
    case ErrorCode::cancelled: return ExitCode::interrupted;
    case ErrorCode::corrupt: return ExitCode::task_failed;
    case ErrorCode::internal: return ExitCode::internal;
  }
  return ExitCode::internal;
}

}  // namespace educloud::cli
