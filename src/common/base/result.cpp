#include "common/base/result.hpp"

#include <cerrno>
#include <system_error>

namespace educloud {

std::string_view to_string(ErrorCode code) {
  switch (code) {
    case ErrorCode::invalid_argument: return "invalid_argument";
    case ErrorCode::unauthenticated: return "unauthenticated";
    case ErrorCode::permission_denied: return "permission_denied";
    case ErrorCode::not_found: return "not_found";
    case ErrorCode::conflict: return "conflict";
    case ErrorCode::too_large: return "too_large";
    case ErrorCode::exhausted: return "exhausted";
    case ErrorCode::unavailable: return "unavailable";
    case ErrorCode::timeout: return "timeout";
    case ErrorCode::cancelled: return "cancelled";
    case ErrorCode::corrupt: return "corrupt";
    case ErrorCode::internal: return "internal";
  }
  return "internal";
}

int http_status(ErrorCode code) {
  switch (code) {
    case ErrorCode::invalid_argument: return 400;
    case ErrorCode::unauthenticated: return 401;
    case ErrorCode::permission_denied: return 403;
    case ErrorCode::not_found: return 404;
    case ErrorCode::conflict: return 409;
    case ErrorCode::too_large: return 413;
    case ErrorCode::exhausted: return 507;
    case ErrorCode::unavailable: return 503;
    case ErrorCode::timeout: return 504;
    case ErrorCode::cancelled: return 499;
    case ErrorCode::corrupt: return 422;
    case ErrorCode::internal: return 500;
  }
  return 500;
}

ErrorCode from_http_status(int status) {
  switch (status) {
    case 401: return ErrorCode::unauthenticated;
    case 403: return ErrorCode::permission_denied;
    case 404:
    case 410: return ErrorCode::not_found;
    case 409:
    case 412: return ErrorCode::conflict;
    case 413: return ErrorCode::too_large;
    case 422: return ErrorCode::corrupt;
    case 429:
    case 502:
    case 503: return ErrorCode::unavailable;
    case 408:
    case 504: return ErrorCode::timeout;
    case 499: return ErrorCode::cancelled;
    case 507: return ErrorCode::exhausted;
    default: return status >= 400 && status < 500 ? ErrorCode::invalid_argument : ErrorCode::internal;
  }
}

bool is_retryable(ErrorCode code) {
  return code == ErrorCode::unavailable || code == ErrorCode::timeout || code == ErrorCode::internal;
}

std::string errno_text(int errno_value) {
  return std::generic_category().message(errno_value);
}

Error errno_error(std::string_view what, int errno_value) {
  ErrorCode code = ErrorCode::internal;
  if (errno_value == ENOENT) code = ErrorCode::not_found;
  if (errno_value == ENOSPC || errno_value == EDQUOT) code = ErrorCode::exhausted;
  if (errno_value == EACCES || errno_value == EPERM) code = ErrorCode::permission_denied;
  return Error{code, std::string(what) + ": " + errno_text(errno_value)};
}

}  // namespace educloud
