#pragma once

#include <algorithm>
#include <chrono>
#include <random>

namespace educloud::bus {

/// Waiting times between attempts: doubling from `first` to `most`, each with 50 to 100 % of its
/// length at random, so that a room of nodes does not come back in the same instant.
class BackOff {
 public:
  explicit BackOff(std::chrono::milliseconds first = std::chrono::milliseconds{200},
                   std::chrono::milliseconds most = std::chrono::milliseconds{10'000})
      : first_(first), most_(most), next_(first) {}

  std::chrono::milliseconds next() {
    std::uniform_int_distribution<std::int64_t> share(next_.count() / 2, next_.count());
    const std::chrono::milliseconds wait{share(random_)};
    next_ = std::min(next_ * 2, most_);
    return std::max(wait, first_ / 2);
  }
  void reset() { next_ = first_; }

 private:
  std::chrono::milliseconds first_, most_, next_;
  std::minstd_rand random_{std::random_device{}()};
};

}  // namespace educloud::bus
