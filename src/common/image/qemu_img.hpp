#pragma once

#include <stop_token>
#include <string>
#include <string_view>

#include "common/image/convert.hpp"
#include "common/sys/process.hpp"

// Private to common/image: running qemu-img and understanding what it says.
namespace educloud::image {

/// Finds "(12.34/100%)" in the pieces of qemu-img's `-p` output; calls back when the number grows.
class PercentParser {
 public:
  explicit PercentParser(const OnPercent& on_percent) : on_percent_(on_percent) {}
  void feed(std::string_view piece);

 private:
  const OnPercent& on_percent_;
  std::string line_;  ///< what follows the last '(', bounded
  int last_ = -1;
};

/// Runs it; a non-zero exit becomes an Error by what it printed: exhausted (disk full), conflict (locked by a
/// running VM), too_large (RLIMIT_FSIZE), timeout (RLIMIT_CPU), otherwise invalid_argument.
Result<> run_qemu_img(const sys::ProcessOptions& options, const std::stop_token& stop);

}  // namespace educloud::image
