#pragma once

#include <condition_variable>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "common/bus/bus.hpp"

namespace educloud::test {

/// What became of each publish, by msgid.
class Outcomes {
 public:
  bus::OnOutcome of(const std::string& msgid) {
    return [this, msgid](bus::Outcome outcome) {
      const std::lock_guard lock(mutex_);
      all_[msgid].push_back(outcome);
      ++count_;
      changed_.notify_all();
    };
  }
  /// Waits until `count` outcomes have come in all.
  bool wait(std::size_t count, std::chrono::seconds limit = std::chrono::seconds{60}) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, limit, [&] { return count_ >= count; });
  }
  std::vector<bus::Outcome> get(const std::string& msgid) {
    const std::lock_guard lock(mutex_);
    return all_[msgid];
  }
  std::map<std::string, std::vector<bus::Outcome>> all() {
    const std::lock_guard lock(mutex_);
    return all_;
  }
  std::size_t count() {
    const std::lock_guard lock(mutex_);
    return count_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, std::vector<bus::Outcome>> all_;
  std::size_t count_ = 0;
};

/// Deliveries as they come; settled with what `verdict` says, or kept unsettled if it has none.
class Deliveries {
 public:
  using Decide = std::function<std::optional<bus::Verdict>(const bus::Delivery&)>;
  explicit Deliveries(Decide decide = [](const bus::Delivery&) { return bus::Verdict::ack; })
      : decide_(std::move(decide)) {}

  bus::OnDelivery sink() {
    return [this](bus::Delivery delivery) {
      const auto verdict = decide_(delivery);
      if (verdict) delivery.settle(*verdict);
      const std::lock_guard lock(mutex_);
      all_.push_back(std::move(delivery));
      changed_.notify_all();
    };
  }
  bool wait(std::size_t count, std::chrono::seconds limit = std::chrono::seconds{60}) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, limit, [&] { return all_.size() >= count; });
  }
  std::vector<bus::Delivery> all() {
    const std::lock_guard lock(mutex_);
    return all_;
  }
  std::size_t count() {
    const std::lock_guard lock(mutex_);
    return all_.size();
  }

 private:
  Decide decide_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<bus::Delivery> all_;
};

}  // namespace educloud::test
