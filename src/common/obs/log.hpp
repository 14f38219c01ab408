#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace educloud::obs {

enum class Level { debug, info, warn, error };

/// One key=value pair of a log line. Values with blanks, quotes or control characters are quoted and
/// escaped, so a hostile value can neither break a line nor the terminal.
struct Field {
  std::string_view key;
  std::string value;

  Field(std::string_view k, std::string_view v) : key(k), value(v) {}
  Field(std::string_view k, const std::string& v) : key(k), value(v) {}
  Field(std::string_view k, const char* v) : key(k), value(v) {}
  Field(std::string_view k, bool v) : key(k), value(v ? "true" : "false") {}
  template <class T>
  requires std::is_arithmetic_v<T> Field(std::string_view k, T v) : key(k), value(std::to_string(v)) {}
};
using Fields = std::initializer_list<Field>;

/// Starts logging: to stderr (the journal), and to `file` if given (size-rotated, 10 MiB x 3).
/// Level from `level`: "debug", "info", "warn", "error".
void init_log(std::string_view process, std::string_view level, const std::string& file = {});

/// "2026-01-31T12:00:00.123Z info nc task.started tid=... op=..."
void log(Level level, std::string_view event, Fields fields = {});

inline void debug(std::string_view event, Fields fields = {}) {
  log(Level::debug, event, fields);
}
/// A state changed.
inline void info(std::string_view event, Fields fields = {}) {
  log(Level::info, event, fields);
}
/// We recovered.
inline void warn(std::string_view event, Fields fields = {}) {
  log(Level::warn, event, fields);
}
/// An operator must act.
inline void error(std::string_view event, Fields fields = {}) {
  log(Level::error, event, fields);
}

}  // namespace educloud::obs
