#pragma once

#include <string>
#include <string_view>
#include <utility>

#include <tl/expected.hpp>

namespace educloud {

/// What went wrong, as far as a caller may act on it. Closed set: each code maps once to an HTTP
/// status (`http_status`) and once to retry or reject (`is_retryable`).
enum class ErrorCode {
  invalid_argument,   ///< the input is wrong; the same input will always be refused
  unauthenticated,    ///< who are you
  permission_denied,  ///< we know you, and no
  not_found,
  conflict,     ///< the object is in a state in which this cannot be done
  too_large,    ///< a body, message or file past its bound
  exhausted,    ///< no capacity: disk, memory, ports, quota
  unavailable,  ///< the other side does not answer now; try again
  timeout,      ///< a deadline passed
  cancelled,    ///< somebody asked to stop
  corrupt,      ///< a digest, a header or a database does not match
  internal,     ///< a defect of ours, or a system call that must not fail
};

/// An expected failure. `message` tells an operator what failed, with which value, and what to do;
/// it never holds a secret. `key` names the offending input field, if there is one.
struct Error {
  ErrorCode code = ErrorCode::internal;
  std::string message;
  std::string key = {};
};

template <class T = void>
using Result = tl::expected<T, Error>;

/// `return fail(ErrorCode::not_found, "...")` from any function that returns a Result.
inline tl::unexpected<Error> fail(ErrorCode code, std::string message, std::string key = {}) {
  return tl::unexpected<Error>(Error{code, std::move(message), std::move(key)});
}

/// Passes an error of another Result on, with `context` put before its message.
inline tl::unexpected<Error> fail(Error error, std::string_view context = {}) {
  if (!context.empty()) error.message = std::string(context) + ": " + error.message;
  return tl::unexpected<Error>(std::move(error));
}

/// Name as it stands in API answers and logs, for instance "not_found".
std::string_view to_string(ErrorCode code);
/// The only mapping of codes to HTTP statuses.
int http_status(ErrorCode code);
/// The reverse, for a client of ours that got `status`.
ErrorCode from_http_status(int status);
/// True if the same request may succeed later without anybody changing it.
bool is_retryable(ErrorCode code);

/// strerror(errno_value), thread-safe.
std::string errno_text(int errno_value);
/// An Error for a failed system call: "open /x: No such file or directory". ENOENT becomes
/// not_found, ENOSPC and EDQUOT exhausted, EACCES and EPERM permission_denied, the rest internal.
Error errno_error(std::string_view what, int errno_value);

}  // namespace educloud
