#pragma once

#include <cstdint>
#include <string>

#include "common/base/clock.hpp"
#include "common/base/rate_meter.hpp"

namespace educloud::cli {

/// How far one piece of work is.
struct Step {
  std::string label;  ///< what is being done
  int percent = -1;   ///< -1: reckoned from the bytes
  std::uint64_t bytes_done = 0;
  std::uint64_t bytes_total = 0;  ///< 0: not known
  std::int64_t bytes_per_s = 0;   ///< as who does the work measured it; 0: reckoned from the bytes seen here
};

/// "uploading  [=====>    ]  52%  1.0 GiB / 2.0 GiB  110.0 MiB/s  00:09 left", at most `width` columns.
std::string render_bar(const Step& step, double bytes_per_second, std::size_t width);

/// The same without the bar, for logs and pipes.
std::string render_plain(const Step& step, double bytes_per_second);

/// Shows a step on stderr: on a terminal one line that is redrawn at most ten times a second, elsewhere a
/// plain line when the label changes and otherwise at most one a second. Silent if not `enabled`.
class ProgressPrinter {
 public:
  ProgressPrinter(bool enabled, bool is_terminal, const Clock& clock)
      : enabled_(enabled), is_terminal_(is_terminal), clock_(clock) {}
  ~ProgressPrinter() { finish(); }
  void show(const Step& step);
  /// Ends the line on a terminal.
  void finish();

 private:
  bool enabled_, is_terminal_;
  const Clock& clock_;
  RateMeter meter_;
  std::string label_;
  std::string last_line_;
  std::int64_t shown_ms_ = 0;
  bool has_line_ = false;
};

}  // namespace educloud::cli
