#include "common/sys/thread_pool.hpp"

#include <pthread.h>

#include <cstdio>
#include <exception>

namespace educloud::sys {

ThreadPool::ThreadPool(Options options) : options_(std::move(options)) {
  threads_.reserve(options_.threads);
  for (std::size_t i = 0; i < options_.threads; ++i) {
    threads_.emplace_back([this, token = stop_.get_token()] { work(token); });
    const auto name = options_.name.substr(0, 12) + "-" + std::to_string(i % 100);
    ::pthread_setname_np(threads_.back().native_handle(), name.c_str());
  }
}

ThreadPool::~ThreadPool() {
  stop();
}

Result<> ThreadPool::submit(Job job) {
  const std::lock_guard lock(mutex_);
  if (stopped_) return fail(ErrorCode::cancelled, "the worker pool '" + options_.name + "' is stopping");
  if (queue_.size() >= options_.queue_limit) {
    return fail(ErrorCode::exhausted, "the worker pool '" + options_.name + "' has " +
                                          std::to_string(queue_.size()) + " jobs waiting: try again later");
  }
  queue_.push_back(std::move(job));
  changed_.notify_one();
  return {};
}

void ThreadPool::stop() {
  std::deque<Job> dropped;  // destroyed outside the lock: a job's captures may call back
  std::vector<std::jthread> threads;
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    dropped.swap(queue_);
    threads.swap(threads_);
  }
  stop_.request_stop();
  changed_.notify_all();
  for (auto& thread : threads) thread.join();
}

std::size_t ThreadPool::load() const {
  const std::lock_guard lock(mutex_);
  return queue_.size() + running_;
}

void ThreadPool::work(std::stop_token stop) {
  for (;;) {
    Job job;
    {
      std::unique_lock lock(mutex_);
      if (!changed_.wait(lock, stop, [this] { return !queue_.empty(); })) return;
      if (stop.stop_requested()) return;
      job = std::move(queue_.front());
      queue_.pop_front();
      ++running_;
    }
    const auto report = [this](std::string_view what) {
      if (options_.on_exception) return options_.on_exception(what);
      std::fprintf(stderr, "worker pool %s: a job threw: %.*s\n", options_.name.c_str(),
                   static_cast<int>(what.size()), what.data());
    };
    try {
      job(stop);
    } catch (const std::exception& error) {
      report(error.what());
    } catch (...) {
      report("not a std::exception");
    }
    job = nullptr;  // before `running_` goes down: load() == 0 means nothing of a job is left
    const std::lock_guard lock(mutex_);
    --running_;
  }
}

}  // namespace educloud::sys
