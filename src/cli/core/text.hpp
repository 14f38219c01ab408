#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace educloud::cli {

/// `text` as it may go to a terminal: control characters (C0 except, if asked, newline and tab; DEL; C1) and
/// bytes that are not UTF-8 become '?', so that nothing a server or a guest says can move the cursor or set a
/// title.
std::string printable(std::string_view text, bool keep_newlines = false);

/// Columns the text takes on a terminal, counting code points.
std::size_t display_width(std::string_view text);

/// Left-aligned columns two blanks apart, first row the headings, no trailing blanks. Every cell is made
/// printable.
std::string render_table(const std::vector<std::vector<std::string>>& rows);

/// "1:02:03" or "02:03"; "--:--" if negative.
std::string format_duration(std::int64_t seconds);

/// Local time "2026-01-31 12:00:00"; "-" for 0. `wall_ms`: unix milliseconds.
std::string format_time(std::int64_t wall_ms);

}  // namespace educloud::cli
