#pragma once

#include <memory>

#include "clc/store/store.hpp"
#include "common/base/clock.hpp"
#include "common/bus/bus.hpp"

namespace educloud::clc {

/// Publishes what stands in the outbox, oldest first, at most `kWindow` unconfirmed at once. A row goes only
/// when the broker has it for good; anything else is tried again, so a message may come twice, never not at
/// all.
class OutboxRelay {
 public:
  static constexpr int kWindow = 64;

  OutboxRelay(store::Store& store, bus::Bus& bus, const Clock& clock);
  ~OutboxRelay();
  OutboxRelay(const OutboxRelay&) = delete;
  OutboxRelay& operator=(const OutboxRelay&) = delete;

  /// Starts its thread. Without it a test calls `pump` itself.
  void start();
  /// The broker must have been stopped before (outcomes refer to this object's state). Idempotent.
  void stop();
  /// There may be something new. From any thread.
  void wake();
  /// The broker is there (again): what was put off goes now.
  void reconnected();
  /// Publishes what is due; returns how many.
  int pump();

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;  ///< shared with outcomes that come late
};

}  // namespace educloud::clc
