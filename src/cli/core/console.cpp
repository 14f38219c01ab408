#include "cli/core/console.hpp"

#include <fcntl.h>
#include <termios.h>
#include <unistd.h>

#include <cstdio>

#include "cli/core/text.hpp"
#include "common/sys/file.hpp"

namespace educloud::cli {
namespace {

constexpr std::size_t kPasswordMost = 1024;

void print(std::FILE* stream, std::string_view text) {
  std::string line = printable(text, true);
  if (line.empty() || line.back() != '\n') line += '\n';
  std::fwrite(line.data(), 1, line.size(), stream);
  std::fflush(stream);
}

std::string dump(const nlohmann::json& document) {
  return document.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

bool Console::stdout_is_terminal() const {
  return ::isatty(STDOUT_FILENO) == 1;
}
bool Console::stderr_is_terminal() const {
  return ::isatty(STDERR_FILENO) == 1;
}

void Console::result(const nlohmann::json& document, std::string_view text) const {
  if (json) {
    print(stdout, dump(document));
  } else if (!text.empty()) {
    print(stdout, text);
  }
}

void Console::note(std::string_view text) const {
  if (!json) print(stderr, text);
}

ExitCode Console::error(const Error& error) const {
  if (json) {
    const nlohmann::json body = {
        {"code", to_string(error.code)}, {"message", error.message}, {"key", error.key}};
    print(stdout, dump({{"error", body}}));
  }
  print(stderr, "educloud: " + error.message);
  return exit_code(error.code);
}

Result<std::string> Console::ask_password(std::string_view prompt) {
  auto terminal = sys::open_file("/dev/tty", O_RDWR | O_NOCTTY);
  if (!terminal) {
    return fail(ErrorCode::invalid_argument,
                "there is no terminal to ask for a password: use --password-file FILE");
  }
  termios before{};
  if (::tcgetattr(terminal->get(), &before) != 0) return fail(errno_error("tcgetattr /dev/tty", errno));
  termios silent = before;
  silent.c_lflag &= ~static_cast<tcflag_t>(ECHO);
  ::tcsetattr(terminal->get(), TCSAFLUSH, &silent);
  (void)sys::write_all(terminal->get(), prompt);
  std::string line;
  char letter = 0;
  while (line.size() < kPasswordMost && ::read(terminal->get(), &letter, 1) == 1 && letter != '\n')
    line += letter;
  ::tcsetattr(terminal->get(), TCSAFLUSH, &before);
  (void)sys::write_all(terminal->get(), "\n");
  return line;
}

}  // namespace educloud::cli
