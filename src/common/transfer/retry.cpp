#include "common/transfer/retry.hpp"

#include <condition_variable>

namespace educloud::transfer {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;
constexpr milliseconds kFirstPause{200};
constexpr milliseconds kLongestPause{5000};

}  // namespace

void sleep_for(milliseconds time, const std::stop_token& stop) {
  std::mutex mutex;
  std::condition_variable_any wake;
  std::unique_lock lock(mutex);
  wake.wait_for(lock, stop, time, [] { return false; });
}

bool is_worth_repeating(int http_status) {
  return http_status == 423 || http_status == 429 || http_status == 408 ||
         (http_status >= 500 && http_status != 501 && http_status != 507);
}

Retry::Retry(std::chrono::seconds timeout, std::chrono::seconds stall)
    : end_(steady_clock::now() + timeout),
      stall_(stall),
      last_progress_(steady_clock::now()),
      pause_(kFirstPause) {}

void Retry::progressed() {
  last_progress_ = steady_clock::now();
  pause_ = kFirstPause;
}

Result<> Retry::check() const {
  if (steady_clock::now() < end_) return {};
  return fail(ErrorCode::timeout, "gave up at the deadline");
}

Result<> Retry::wait(const Error& reason, std::stop_token stop, milliseconds at_least) {
  const auto now = steady_clock::now();
  if (now >= end_) return fail(ErrorCode::timeout, "gave up at the deadline; last: " + reason.message);
  if (now - last_progress_ >= stall_) {
    return fail(Error{reason.code, reason.message, reason.key},
                "nothing moved for " + std::to_string(stall_.count()) + " s");
  }
  const auto left = std::chrono::duration_cast<milliseconds>(end_ - now);
  sleep_for(std::min(std::max(pause_, at_least), left), stop);
  pause_ = std::min(pause_ * 2, kLongestPause);
  if (stop.stop_requested()) return fail(ErrorCode::cancelled, "stopped");
  return {};
}

}  // namespace educloud::transfer
