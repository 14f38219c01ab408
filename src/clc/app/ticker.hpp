#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "clc/app/engine.hpp"
#include "clc/app/reconciler.hpp"
#include "clc/store/store.hpp"

namespace educloud::clc {

/// clc's own clock, once a second: commands without news are sent again, states that last too long time
/// out, what nodes say they hold is compared, what has expired is removed.
class Ticker {
 public:
  /// `heartbeats` gives it the inventories from now on.
  Ticker(store::Store& store, Engine& engine, Heartbeats& heartbeats, const Clock& clock)
      : store_(store),
        engine_(engine),
        heartbeats_(heartbeats),
        clock_(clock),
        reconciler_(store, engine, clock) {
    heartbeats_.on_inventory([this](msg::Inventory part) { reconciler_.take(std::move(part)); });
  }
  ~Ticker() {
    stop();
    heartbeats_.on_inventory([](const msg::Inventory&) {});
  }
  Ticker(const Ticker&) = delete;
  Ticker& operator=(const Ticker&) = delete;

  /// Before the first round. Deadlines that passed while clc was down get a minute more; those that a clock
  /// set back meanwhile has put off are brought near.
  Result<> prepare();
  /// `part` is called in each round, on the same thread; its errors are logged. Before `start`.
  void also(std::function<Result<>()> part) { parts_.push_back(std::move(part)); }
  /// One round. Tests call it themselves.
  Result<> tick();
  void start();
  void stop();

 private:
  Result<> heed_clock_jump();
  Result<> look_at_tasks();
  Result<> count_tasks();

  store::Store& store_;
  Engine& engine_;
  Heartbeats& heartbeats_;
  const Clock& clock_;
  std::int64_t offset_ms_ = 0;  ///< wall - boot at the last round
  bool has_offset_ = false;
  std::int64_t swept_at_boot_ms_ = -1'000'000;
  std::int64_t counted_at_boot_ms_ = -1'000'000;
  Reconciler reconciler_;
  std::vector<std::function<Result<>()>> parts_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace educloud::clc
