#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "common/base/result.hpp"

namespace educloud::sys {

/// A few threads for work that blocks (copying, hashing, running programs), with a bounded queue.
/// All members may be called from any thread, except stop() and the destructor from a job.
class ThreadPool {
 public:
  /// Long jobs look at the token: it is stopped by stop().
  using Job = std::function<void(std::stop_token)>;

  struct Options {
    std::string name;  ///< of the threads, for ps and gdb; the first 12 characters count
    std::size_t threads = 2;
    std::size_t queue_limit = 64;  ///< jobs that wait; the running ones do not count
    /// Called in the worker with what() of an exception that left a job: the thread's catch-all.
    /// Without it the text goes to stderr.
    std::function<void(std::string_view)> on_exception = {};
  };

  explicit ThreadPool(Options options);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  /// Errors: exhausted if `queue_limit` jobs wait already, cancelled after stop().
  Result<> submit(Job job);

  /// Stops the running jobs' tokens, drops the jobs that have not begun, joins. Idempotent.
  void stop();

  /// Jobs waiting plus running.
  std::size_t load() const;

 private:
  void work(std::stop_token stop);

  const Options options_;
  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<Job> queue_;
  std::size_t running_ = 0;
  bool stopped_ = false;
  std::stop_source stop_;
  std::vector<std::jthread> threads_;
};

}  // namespace educloud::sys
