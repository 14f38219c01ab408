#include "cli/core/progress.hpp"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdio>

#include "cli/core/text.hpp"
#include "common/base/bytes.hpp"

namespace educloud::cli {
namespace {

constexpr std::int64_t kRedrawMs = 100;
constexpr std::int64_t kPlainMs = 1000;
constexpr std::size_t kBarLeast = 10;
constexpr std::size_t kBarMost = 30;

int percent_of(const Step& step) {
  if (step.percent >= 0) return std::min(step.percent, 100);
  if (step.bytes_total == 0) return -1;
  const double share = static_cast<double>(step.bytes_done) / static_cast<double>(step.bytes_total);
  return static_cast<int>(std::min(1.0, share) * 100);
}

/// "1.0 GiB / 2.0 GiB  110.0 MiB/s  00:09 left", or as much of it as is known.
std::string render_numbers(const Step& step, double rate) {
  if (step.bytes_total == 0 && step.bytes_done == 0) return "";
  std::string out = to_string(Bytes{step.bytes_done});
  if (step.bytes_total > 0) out += " / " + to_string(Bytes{step.bytes_total});
  if (rate < 1) return out;
  out += "  " + to_string(Bytes{static_cast<std::uint64_t>(rate)}) + "/s";
  if (step.bytes_total > step.bytes_done) {
    const double left = static_cast<double>(step.bytes_total - step.bytes_done) / rate;
    out += "  " + format_duration(static_cast<std::int64_t>(left + 0.999)) + " left";
  }
  return out;
}

std::size_t terminal_width() {
  winsize size{};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= 20) return size.ws_col;
  return 80;
}

}  // namespace

std::string render_plain(const Step& step, double bytes_per_second) {
  std::string out = printable(step.label);
  const int percent = percent_of(step);
  if (percent >= 0) out += "  " + std::to_string(percent) + "%";
  const std::string numbers = render_numbers(step, bytes_per_second);
  if (!numbers.empty()) out += "  " + numbers;
  return out;
}

std::string render_bar(const Step& step, double bytes_per_second, std::size_t width) {
  const int percent = percent_of(step);
  const std::string numbers = render_numbers(step, bytes_per_second);
  const std::string label = printable(step.label);
  std::string tail = percent < 0 ? ""
                                 : "  " +
                                       std::string(percent < 10    ? "  "
                                                   : percent < 100 ? " "
                                                                   : "") +
                                       std::to_string(percent) + "%";
  if (!numbers.empty()) tail += "  " + numbers;
  const std::size_t used = display_width(label) + display_width(tail) + 4;
  std::string out = label;
  if (percent >= 0 && used + kBarLeast <= width) {
    const std::size_t length = std::min(kBarMost, width - used);
    const std::size_t filled = length * static_cast<std::size_t>(percent) / 100;
    std::string bar(filled, '=');
    if (filled < length) bar += '>';
    bar.resize(length, ' ');
    out += "  [" + bar + "]";
  }
  out += tail;
  // A line longer than the terminal would wrap, and the next redraw would leave its first half standing.
  while (display_width(out) > width) out.pop_back();
  return printable(out);
}

void ProgressPrinter::show(const Step& step) {
  if (!enabled_) return;
  const auto now_ms = clock_.boot_ms();
  meter_.add(step.bytes_done, now_ms);
  const bool is_new = step.label != label_;
  const auto pause_ms = is_terminal_ ? kRedrawMs : kPlainMs;
  if (!is_new && now_ms - shown_ms_ < pause_ms) return;
  const double rate =
      step.bytes_per_s > 0 ? static_cast<double>(step.bytes_per_s) : meter_.bytes_per_second();
  const std::string line =
      is_terminal_ ? render_bar(step, rate, terminal_width() - 1) : render_plain(step, rate);
  if (line == last_line_) return;
  if (is_terminal_) {
    if (is_new && has_line_) std::fputc('\n', stderr);
    std::fprintf(stderr, "\r\033[K%s", line.c_str());
    std::fflush(stderr);
    has_line_ = true;
  } else {
    std::fprintf(stderr, "%s\n", line.c_str());
  }
  label_ = step.label;
  last_line_ = line;
  shown_ms_ = now_ms;
}

void ProgressPrinter::finish() {
  if (has_line_) std::fputc('\n', stderr);
  has_line_ = false;
}

}  // namespace educloud::cli
