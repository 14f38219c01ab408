#include "cli/core/text.hpp"

#include <ctime>

namespace educloud::cli {
namespace {

/// Length of the well-formed UTF-8 sequence at `at`, and its code point; 0 if there is none.
std::size_t decode_utf8(std::string_view text, std::size_t at, char32_t& code) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned first = byte(at);
  if (first < 0x80) {
    code = first;
    return 1;
  }
  const std::size_t size = first >= 0xF0 && first <= 0xF4  ? 4
                           : first >= 0xE0 && first < 0xF0 ? 3
                           : first >= 0xC2 && first < 0xE0 ? 2
                                                           : 0;
  if (size == 0 || at + size > text.size()) return 0;
  code = first & (0xFFu >> (size + 1));
  for (std::size_t i = 1; i < size; ++i) {
    if ((byte(at + i) & 0xC0) != 0x80) return 0;
    code = (code << 6) | (byte(at + i) & 0x3F);
  }
  const bool overlong = (size == 3 && code < 0x800) || (size == 4 && code < 0x10000);
  const bool surrogate = code >= 0xD800 && code <= 0xDFFF;
  return overlong || surrogate || code > 0x10FFFF ? 0 : size;
}

/// Control characters, and the invisible ones that reorder a line.
bool is_harmful(char32_t code) {
  return code < 0x20 || (code >= 0x7F && code < 0xA0) || (code >= 0x202A && code <= 0x202E) ||
         (code >= 0x2066 && code <= 0x2069) || code == 0x200E || code == 0x200F || code == 0xFEFF;
}

}  // namespace

std::string printable(std::string_view text, bool keep_newlines) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    char32_t code = 0;
    const std::size_t size = decode_utf8(text, at, code);
    const bool kept = keep_newlines && (code == '\n' || code == '\t');
    if (size == 0 || (is_harmful(code) && !kept)) {
      out += '?';
    } else {
      out += text.substr(at, size);
    }
    at += std::max<std::size_t>(size, 1);
  }
  return out;
}

std::size_t display_width(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

std::string render_table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::vector<std::string>> cells;
  std::vector<std::size_t> widths;
  for (const auto& row : rows) {
    auto& line = cells.emplace_back();
    for (const auto& cell : row) {
      line.push_back(printable(cell));
      if (widths.size() < line.size()) widths.push_back(0);
      widths[line.size() - 1] = std::max(widths[line.size() - 1], display_width(line.back()));
    }
  }
  std::string out;
  for (const auto& row : cells) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      line += row[i];
      if (i + 1 < row.size()) line.append(widths[i] - display_width(row[i]) + 2, ' ');
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  }
  return out;
}

std::string format_duration(std::int64_t seconds) {
  if (seconds < 0) return "--:--";
  char text[32];
  const auto hours = static_cast<long>(seconds / 3600);
  const int minutes = static_cast<int>(seconds / 60 % 60);
  const int rest = static_cast<int>(seconds % 60);
  if (hours > 0) {
    std::snprintf(text, sizeof text, "%ld:%02d:%02d", hours, minutes, rest);
  } else {
    std::snprintf(text, sizeof text, "%02d:%02d", minutes, rest);
  }
  return text;
}

std::string format_time(std::int64_t wall_ms) {
  if (wall_ms <= 0) return "-";
  const std::time_t seconds = wall_ms / 1000;
  std::tm parts{};
  ::localtime_r(&seconds, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &parts);
  return text;
}

}  // namespace educloud::cli
