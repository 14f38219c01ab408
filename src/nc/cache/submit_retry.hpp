#pragma once

#include <atomic>
#include <chrono>
#include <stop_token>

#include "common/base/result.hpp"

// Private to nc/cache: how long the connections of one submit go on trying together.
namespace educloud::nc {

/// Back-off from 0.2 s to 5 s per caller, until nothing moved on any connection for `stall`. Thread-safe.
class SharedRetry {
 public:
  explicit SharedRetry(std::chrono::seconds stall);

  /// Something moved.
  void progressed();
  /// Calls `what` (a Result of something) until it works, fails for good, or it is time to give up. Errors:
  /// the last one; cancelled.
  template <class Call>
  auto run(const std::stop_token& stop, Call what) -> decltype(what()) {
    std::chrono::milliseconds pause = kFirstPause;
    for (;;) {
      auto done = what();
      if (done) {
        progressed();
        return done;
      }
      if (!wait(done.error(), stop, pause)) return done;
    }
  }

 private:
  static constexpr std::chrono::milliseconds kFirstPause{200};
  /// False: give up.
  bool wait(const Error& reason, const std::stop_token& stop, std::chrono::milliseconds& pause);

  const std::chrono::steady_clock::duration stall_;
  std::atomic<std::chrono::steady_clock::time_point> moved_;
};

}  // namespace educloud::nc
