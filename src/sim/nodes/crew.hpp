#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <stop_token>
#include <thread>
#include <vector>

namespace educloud::sim {

/// A few threads that work for many nodes. A node is one in the queue at most, and only one thread is with it
/// at a time, so that its commands stay in order; the queue is bounded by the number of nodes.
class Crew {
 public:
  /// `work(index)` does what there is for that node and returns.
  Crew(std::size_t nodes, std::function<void(std::size_t)> work);
  ~Crew() { stop(); }

  void start(int threads);
  /// There is something for this node. From any thread.
  void call(std::size_t node);
  /// Waits for what is under way. Idempotent.
  void stop();

 private:
  enum class Place { idle, queued, served, served_and_called };
  void serve(std::stop_token stop);

  const std::function<void(std::size_t)> work_;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::vector<Place> places_;      // under mutex_
  std::deque<std::size_t> queue_;  // under mutex_
  std::vector<std::jthread> threads_;
};

}  // namespace educloud::sim
