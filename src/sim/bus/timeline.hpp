#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <queue>
#include <string_view>
#include <vector>

#include "common/base/clock.hpp"

namespace educloud::sim {

/// Something that ends: a process, a connection. Events that belong to one do not happen after its end.
using Life = std::shared_ptr<const int>;
inline Life new_life() {
  return std::make_shared<const int>(0);
}

/// The virtual time of one world and what is still to happen in it. Events of the same millisecond happen in
/// the order in which they were planned.
class Timeline {
 public:
  std::int64_t now_ms() const { return now_ms_; }
  void after(std::int64_t delay_ms, std::function<void()> what) {
    plan(delay_ms, {}, false, std::move(what));
  }
  void after(const Life& life, std::int64_t delay_ms, std::function<void()> what) {
    plan(delay_ms, life, true, std::move(what));
  }
  /// `what` again and again, the first time after `delay_ms`.
  void every(const Life& life, std::int64_t delay_ms, std::int64_t period_ms, std::function<void()> what);

  /// Moves to the next event and lets it happen. False: there is none.
  bool step();
  std::uint64_t events() const { return events_; }

  /// Mixes something that happened into the run's digest: two runs of one seed must end with the same.
  void note(std::string_view what);
  std::uint64_t digest() const { return digest_; }

 private:
  struct Event {
    std::int64_t at_ms = 0;
    std::uint64_t order = 0;
    std::weak_ptr<const int> life;
    bool has_life = false;
    std::function<void()> what;
    bool operator>(const Event& other) const {
      return at_ms != other.at_ms ? at_ms > other.at_ms : order > other.order;
    }
  };
  void plan(std::int64_t delay_ms, std::weak_ptr<const int> life, bool has_life, std::function<void()> what);

  std::int64_t now_ms_ = 0;
  std::uint64_t order_ = 0;
  std::uint64_t events_ = 0;
  std::uint64_t digest_ = 0xcbf29ce484222325ULL;
  std::vector<Event> heap_;
};

/// The clocks of one host: they run with the timeline, its wall clock set wrong by `skew_ms`.
class HostClock : public Clock {
 public:
  static constexpr std::int64_t kEpochMs = 1'800'000'000'000;

  HostClock(const Timeline& timeline, std::int64_t skew_ms) : timeline_(timeline), skew_ms_(skew_ms) {}
  std::int64_t wall_ms() const override { return kEpochMs + timeline_.now_ms() + skew_ms_; }
  std::int64_t boot_ms() const override { return 1'000'000 + timeline_.now_ms(); }
  void set_skew(std::int64_t skew_ms) { skew_ms_ = skew_ms; }

 private:
  const Timeline& timeline_;
  std::int64_t skew_ms_;
};

}  // namespace educloud::sim
