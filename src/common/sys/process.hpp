#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.hpp"

namespace educloud::sys {

struct ProcessOptions {
  std::vector<std::string> argv;  ///< argv[0] is searched in PATH; never goes through a shell
  std::chrono::milliseconds timeout{30'000};
  std::size_t output_limit = 256 * 1024;  ///< of stdout and of stderr; the rest is read and dropped
  std::string input = {};                 ///< written to its stdin
  std::string run_as_user = {};           ///< needs root: setgroups, setgid, setuid, no_new_privs
  bool without_network = false;           ///< needs root: a new, empty network namespace
  std::uint64_t address_space_limit = 0;  ///< RLIMIT_AS in bytes; 0: none
  std::uint64_t cpu_seconds_limit = 0;    ///< RLIMIT_CPU; 0: none
  /// Called with each piece of stdout as it comes, for progress.
  std::function<void(std::string_view)> on_stdout = {};
};

struct ProcessResult {
  int exit_code = -1;  ///< 128 + signal if it was killed
  std::string out;
  std::string err;
};

/// Runs a program to its end. Its environment is only PATH, LANG=C.UTF-8; it dies with its parent
/// (PDEATHSIG). A non-zero exit is not an Error: look at `exit_code`.
/// Errors: not_found (program), timeout (then it is killed and reaped), cancelled, internal.
Result<ProcessResult> run(const ProcessOptions& options, std::stop_token stop = {});

/// run() where a non-zero exit is an Error that holds the last lines of stderr. Returns stdout.
Result<std::string> run_checked(const ProcessOptions& options, std::stop_token stop = {});

}  // namespace educloud::sys
