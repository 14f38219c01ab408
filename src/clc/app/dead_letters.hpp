#pragma once

#include "clc/store/store.hpp"
#include "common/base/clock.hpp"
#include "common/bus/bus.hpp"

namespace educloud::clc {

/// Takes what anybody refused, or nobody took in time, out of `dead_letter_queue` into the database, where an
/// administrator sees it with its cause. Acked once it is there for good.
class DeadLetters {
 public:
  DeadLetters(store::Store& store, const Clock& clock) : store_(store), clock_(clock) {}

  /// `bus` must be stopped before this object goes.
  void subscribe(bus::Bus& bus);
  void take(bus::Delivery delivery);

 private:
  store::Store& store_;
  const Clock& clock_;
};

}  // namespace educloud::clc
