#include "sim/nodes/crew.hpp"

#include "common/obs/log.hpp"

namespace educloud::sim {

Crew::Crew(std::size_t nodes, std::function<void(std::size_t)> work)
    : work_(std::move(work)), places_(nodes, Place::idle) {}

void Crew::start(int threads) {
  for (int i = 0; i < threads; ++i) {
    threads_.emplace_back([this](std::stop_token stop) { serve(std::move(stop)); });
  }
}

void Crew::call(std::size_t node) {
  {
    const std::lock_guard lock(mutex_);
    auto& place = places_.at(node);
    if (place == Place::served) place = Place::served_and_called;
    if (place != Place::idle) return;
    place = Place::queued;
    queue_.push_back(node);
  }
  changed_.notify_one();
}

void Crew::serve(std::stop_token stop) {
  std::unique_lock lock(mutex_);
  while (changed_.wait(lock, stop, [&] { return !queue_.empty(); })) {
    if (stop.stop_requested()) return;
    const std::size_t node = queue_.front();
    queue_.pop_front();
    places_[node] = Place::served;
    lock.unlock();
    try {
      work_(node);
    } catch (const std::exception& e) {
      obs::error("nodes.exception", {{"what", e.what()}});
    }
    lock.lock();
    const bool again = places_[node] == Place::served_and_called;
    places_[node] = again ? Place::queued : Place::idle;
    if (again) queue_.push_back(node);
  }
}

void Crew::stop() {
  for (auto& thread : threads_) thread.request_stop();
  threads_.clear();
}

}  // namespace educloud::sim
