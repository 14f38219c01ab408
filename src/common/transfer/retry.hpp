#pragma once

#include <chrono>
#include <stop_token>

#include "common/base/result.hpp"

// Private to common/transfer: how long a blocking transfer goes on trying.
namespace educloud::transfer {

/// Back-off from 0.2 s to 5 s, until nothing moved for `stall` or the whole took `timeout`.
class Retry {
 public:
  Retry(std::chrono::seconds timeout, std::chrono::seconds stall);

  /// Something moved: the back-off begins anew.
  void progressed();
  /// Errors: timeout once the whole took too long.
  Result<> check() const;
  /// Waits before the next attempt, at least `at_least`. Errors: `reason` itself once it is time to give
  /// up (timeout if the whole took too long), cancelled.
  Result<> wait(const Error& reason, std::stop_token stop, std::chrono::milliseconds at_least = {});

 private:
  std::chrono::steady_clock::time_point end_;
  std::chrono::seconds stall_;
  std::chrono::steady_clock::time_point last_progress_;
  std::chrono::milliseconds pause_;
};

/// Sleeps, shorter if `stop` is requested.
void sleep_for(std::chrono::milliseconds time, const std::stop_token& stop);

/// True if the same request may be answered otherwise soon. 507 is not: a full disk waits for a person.
bool is_worth_repeating(int http_status);

}  // namespace educloud::transfer
