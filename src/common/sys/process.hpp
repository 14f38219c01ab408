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
  std::string working_directory = {};         ///< entered before the user is switched; empty: ours
  std::uint64_t file_size_limit = 0;          ///< RLIMIT_FSIZE in bytes, SIGXFSZ past it; 0: none
  std::vector<std::string> environment = {};  ///< "NAME=value", beside those that every program gets
};

struct ProcessResult {
  int exit_code = -1;  ///< 128 + signal if it was killed
  std::string out;
  std::string err;
};

/// Runs a program to its end. Its environment is only PATH, LANG=C.UTF-8, what the options name and, with an
/// address_space_limit, MALLOC_ARENA_MAX=1; it inherits no descriptor but
/// its three streams, ignores no signal, and dies with its parent (PDEATHSIG, which watches the calling
/// thread: that one waits here until the program is reaped, so any thread may call). The program has a
/// process group of its own; whatever of it is left at the end, or at a timeout, is killed: to start a
/// daemon is not what this is for. A non-zero exit is not an Error: look at `exit_code`.
/// Errors: not_found (program), timeout (then it is killed and reaped), cancelled, internal.
Result<ProcessResult> run(const ProcessOptions& options, std::stop_token stop = {});

/// run() where a non-zero exit is an Error that holds the last lines of stderr. Returns stdout.
Result<std::string> run_checked(const ProcessOptions& options, std::stop_token stop = {});

}  // namespace educloud::sys
