#include "nc/cache/submit_retry.hpp"

#include <condition_variable>
#include <mutex>

#include "common/obs/log.hpp"

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
  std::mutex mutex;
  std::condition_variable_any never;
  std::unique_lock lock(mutex);
  never.wait_for(lock, stop, pause, [] { return false; });
  pause = std::min(pause * 2, kLastPause);
  return !stop.stop_requested();
}

}  // namespace educloud::nc
