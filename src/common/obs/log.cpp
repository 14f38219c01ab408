#include "common/obs/log.hpp"

#include <spdlog/sinks/rotating_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <memory>

namespace educloud::obs {
namespace {

constexpr std::size_t kFileBytes = 10u << 20;
constexpr std::size_t kFiles = 3;
/// A value longer than this is cut: a log line is for reading.
constexpr std::size_t kValueBytes = 2000;

std::shared_ptr<spdlog::logger> make_logger(std::string_view process, const std::string& file) {
  std::vector<spdlog::sink_ptr> sinks{std::make_shared<spdlog::sinks::stderr_sink_mt>()};
  if (!file.empty()) {
    sinks.push_back(std::make_shared<spdlog::sinks::rotating_file_sink_mt>(file, kFileBytes, kFiles));
  }
  auto logger = std::make_shared<spdlog::logger>(std::string(process), sinks.begin(), sinks.end());
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %l %n %v", spdlog::pattern_time_type::utc);
  logger->flush_on(spdlog::level::info);
  return logger;
}

std::shared_ptr<spdlog::logger>& logger() {
  static std::shared_ptr<spdlog::logger> instance = make_logger("educloud", "");
  return instance;
}

void append_value(std::string& line, std::string_view value) {
  value = value.substr(0, kValueBytes);
  bool plain = !value.empty();
  for (const char c : value) {
    const auto u = static_cast<unsigned char>(c);
    plain = plain && u > 0x20 && u != 0x7f && c != '"' && c != '\\' && c != '=';
  }
  if (plain) {
    line += value;
    return;
  }
  constexpr char kDigits[] = "0123456789abcdef";
  line += '"';
  for (const char c : value) {
    const auto u = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      line += '\\';
      line += c;
    } else if (c == '\n') {
      line += "\\n";
    } else if (u < 0x20 || u == 0x7f) {
      line += "\\x";
      line += kDigits[u >> 4];
      line += kDigits[u & 0xf];
    } else {
      line += c;
    }
  }
  line += '"';
}

spdlog::level::level_enum to_spdlog(Level level) {
  switch (level) {
    case Level::debug: return spdlog::level::debug;
    case Level::info: return spdlog::level::info;
    case Level::warn: return spdlog::level::warn;
    case Level::error: return spdlog::level::err;
  }
  return spdlog::level::info;
}

}  // namespace

void init_log(std::string_view process, std::string_view level, const std::string& file) {
  // A log file that cannot be opened must not keep a daemon from serving: the journal still has it all.
  std::string problem;
  try {
    logger() = make_logger(process, file);
  } catch (const spdlog::spdlog_ex& e) {
    problem = e.what();
    logger() = make_logger(process, "");
  }
  logger()->set_level(spdlog::level::from_str(std::string(level)));
  if (!problem.empty()) warn("log.file_unusable", {{"file", file}, {"error", problem}});
}

void log(Level level, std::string_view event, Fields fields) {
  const auto target = to_spdlog(level);
  if (!logger()->should_log(target)) return;
  std::string line(event);
  for (const Field& field : fields) {
    line += ' ';
    line += field.key;
    line += '=';
    append_value(line, field.value);
  }
  logger()->log(target, spdlog::string_view_t(line.data(), line.size()));
}

}  // namespace educloud::obs
