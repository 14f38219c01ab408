#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "common/base/result.hpp"

namespace educloud::bus {

/// One message to publish. It is always `mandatory`.
struct Outgoing {
  std::string exchange;
  std::string routing_key;
  std::string body;                         ///< JSON, at most limits::kMessageBytes
  std::string msgid;                        ///< shown in the console; also how a RETURN finds its publish
  std::chrono::milliseconds expiration{0};  ///< 0: never
  /// False: classic queues (heartbeats, leases, the console's tap) keep it in memory only and confirm at
  /// once. Quorum queues, which is where all work goes, have everything on disk before they confirm.
  bool persistent = true;
};

/// What became of a publish.
enum class Outcome {
  confirmed,  ///< the broker has it on disk in at least one queue
  returned,   ///< no queue is bound for this key: nothing was kept
  failed,     ///< nack, connection lost, or no answer before the deadline: may or may not be kept
};
using OnOutcome = std::function<void(Outcome)>;

/// What to do with a delivered message.
enum class Verdict {
  ack,      ///< done with, for ever
  requeue,  ///< give it again later (counts towards the queue's delivery limit)
  reject,   ///< to the dead letter queue
};

/// A delivered message. `settle` must be called exactly once, from any thread; after the connection
/// it came by is gone it does nothing (the broker delivers the message again).
struct Delivery {
  std::string queue;
  std::string exchange;
  std::string routing_key;
  std::string user_id;  ///< the sender's login, verified by the broker; empty if it set none
  std::string body;
  bool redelivered = false;
  std::function<void(Verdict)> settle;
  std::uint64_t sent_bytes = 0;  ///< of the whole body, if `body` is its beginning only; else 0
  /// In a queue of dead letters: where it died first, why ("rejected", "expired", "delivery_limit",
  /// "maxlen"), and to which exchange it was sent. Empty elsewhere. A sender may have written these himself.
  std::string first_death_queue = {}, first_death_reason = {}, first_death_exchange = {};
};
/// Called on the bus's own consumer thread: hand over and return, never block.
using OnDelivery = std::function<void(Delivery)>;

struct Subscription {
  std::string queue;
  std::uint16_t prefetch = 64;
  OnDelivery on_delivery;
  /// Messages over limits::kMessageBytes are handed over as their beginning (Delivery::sent_bytes) instead of
  /// being rejected unread.
  bool cut_oversized = false;
};

/// At-least-once messaging. Reconnects by itself for ever, with back-off; what was not confirmed
/// when a connection went is reported `failed`, and the owner of the message sends it again.
class Bus {
 public:
  virtual ~Bus() = default;

  /// Queues `message` for publishing and returns. `on_outcome` is called exactly once, on the
  /// publisher thread, at the latest `Options::confirm_timeout` after the call.
  /// Errors: exhausted if the bounded send queue is full (nothing was queued, no callback).
  virtual Result<> publish(Outgoing message, OnOutcome on_outcome) = 0;

  /// All subscriptions must be made before `start`.
  virtual void subscribe(Subscription subscription) = 0;

  /// `on_ready` runs on the publisher thread each time publishing becomes possible (first connect
  /// and after each reconnect): the moment to send again what is unconfirmed.
  virtual void start(std::function<void()> on_ready) = 0;

  /// Stops both threads; outstanding publishes are reported failed. Idempotent.
  virtual void stop() = 0;

  /// True while both connections are up and the broker does not block us.
  virtual bool is_ready() const = 0;
};

}  // namespace educloud::bus
