#include "common/image/qemu_img.hpp"

#include <charconv>
#include <csignal>

namespace educloud::image {

void PercentParser::feed(std::string_view piece) {
  if (!on_percent_) return;
  for (const char c : piece) {
    if (c == '(') {
      line_.clear();
    } else if (c == '/') {
      int percent = 0;
      const auto [end, error] = std::from_chars(line_.data(), line_.data() + line_.size(), percent);
      if (error == std::errc{} && percent > last_ && percent <= 100) {
        last_ = percent;
        on_percent_(percent);
      }
      line_.clear();
    } else if (line_.size() < 16) {
      line_.push_back(c);
    }
  }
}

Result<> run_qemu_img(const sys::ProcessOptions& options, const std::stop_token& stop) {
  auto result = sys::run(options, stop);
  if (!result) {
    if (result.error().code != ErrorCode::not_found) return fail(result.error());
    return fail(ErrorCode::not_found, result.error().message + ": install the package qemu-utils");
  }
  if (result->exit_code == 0) return {};
  if (result->exit_code == 128 + SIGXFSZ) {
    return fail(ErrorCode::too_large, "the converted image would be larger than the limit of " +
                                          std::to_string(options.file_size_limit) + " bytes");
  }
  if (result->exit_code == 128 + SIGXCPU || result->exit_code == 128 + SIGKILL) {
    return fail(ErrorCode::timeout, "qemu-img was stopped: more than " +
                                        std::to_string(options.cpu_seconds_limit) +
                                        " s of CPU, or killed for memory");
  }
  const auto& err = result->err;
  const auto says = [&err](std::string_view text) { return err.find(text) != std::string::npos; };
  const auto message =
      "qemu-img " + (options.argv.size() > 1 ? options.argv[1] : "") + " failed: " + printable(err);
  if (says("No space left on device") || says("Disk quota exceeded") || says("Cannot allocate memory")) {
    return fail(ErrorCode::exhausted, message);
  }
  if (says("File too large")) return fail(ErrorCode::too_large, message);
  if (says("Failed to get") && says("lock")) {
    return fail(ErrorCode::conflict, message + " (a VM still uses the disk: stop it first)");
  }
  return fail(ErrorCode::invalid_argument, message);
}

}  // namespace educloud::image
