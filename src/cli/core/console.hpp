#pragma once

#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "cli/core/exit_code.hpp"
#include "common/base/result.hpp"

namespace educloud::cli {

/// Where the program's answers go: results to stdout (text, or JSON with --json), everything else to stderr.
class Console {
 public:
  bool json = false;   ///< --json: exactly one JSON document, on one line of stdout
  bool quiet = false;  ///< --quiet: no progress

  bool stdout_is_terminal() const;
  bool stderr_is_terminal() const;

  /// A result. `text` is made printable, newlines kept; a newline is added unless it ends with one.
  void result(const nlohmann::json& document, std::string_view text) const;
  /// A remark for a person, to stderr; not shown with --json.
  void note(std::string_view text) const;
  /// The error as text on stderr, or with --json as {"error": {code, message, key}} on stdout.
  ExitCode error(const Error& error) const;

  /// Asks on the terminal without echo. Errors: invalid_argument if there is no terminal.
  static Result<std::string> ask_password(std::string_view prompt);
};

}  // namespace educloud::cli
