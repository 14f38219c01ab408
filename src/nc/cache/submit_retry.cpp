#include "nc/cache/submit_retry.hpp"

#include "common/obs/log.hpp"
#include "common/sys/pause.hpp"

namespace educloud::nc {
namespace {

constexpr std::chrono::milliseconds kLastPause{5000};

}  // namespace

SharedRetry::SharedRetry(std::chrono::seconds stall)
    : stall_(stall), moved_(std::chrono::steady_clock::now()) {}

void SharedRetry::progressed() {
  moved_ = std::chrono::steady_clock::now();
}

bool SharedRetry::wait(const Error& reason, const std::stop_token& stop, std::chrono::milliseconds& pause) {
  if (!is_retryable(reason.code) || stop.stop_requested()) return false;
  if (std::chrono::steady_clock::now() + pause > moved_.load() + stall_) return false;
  obs::info("submit.retry", {{"reason", reason.message}, {"after_ms", pause.count()}});
  const bool goes_on = sys::pause(pause, stop);
  pause = std::min(pause * 2, kLastPause);
  return goes_on;
}

}  // namespace educloud::nc
