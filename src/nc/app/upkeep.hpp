#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace educloud::nc {

/// Calls parts that watch their own time once a second, in one thread; what they throw is logged.
class Upkeep {
 public:
  explicit Upkeep(std::vector<std::function<void()>> parts) : parts_(std::move(parts)) {}
  ~Upkeep() { stop(); }

  void start();
  void stop();
  /// Now, not in a second. From any thread.
  void wake();

 private:
  const std::vector<std::function<void()>> parts_;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  bool woken_ = false;  // under mutex_
  std::jthread thread_;
};

}  // namespace educloud::nc
