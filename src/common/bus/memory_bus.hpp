#pragma once

#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "common/bus/bus.hpp"

namespace educloud::bus {

class MemoryBus;

/// A broker in memory for unit tests: exchanges are direct bindings (exchange, key) -> queue; nothing
/// happens until `deliver_one` or `deliver_all` is called, on the caller's thread, so a test decides the
/// order.
class MemoryBroker {
 public:
  /// Messages published with this exchange and key go to `queue`. A key ending in ".#" matches every
  /// key with that prefix. What is bound to ("dead_letter", "#") gets what is rejected elsewhere.
  void bind(const std::string& exchange, const std::string& key, const std::string& queue);
  /// Delivers the oldest message of any subscribed queue. False if there is none.
  bool deliver_one();
  /// Until nothing is left; returns how many. Stops after `most`, so a loop of messages cannot hang a test.
  int deliver_all(int most = 10'000);
  /// While false, publishes are reported failed and nothing is delivered. Going down requeues what was
  /// not settled; coming up calls every bus's `on_ready`.
  void set_up(bool up);
  /// Messages in `queue` that are not with a consumer.
  std::size_t depth(const std::string& queue) const;
  /// Delivered, and `settle` not called yet.
  std::size_t unsettled() const;
  /// Bodies rejected to the dead letter queue so far.
  std::size_t dead_letters() const;

  /// A Bus of this broker whose messages carry `user_id`. The broker must outlive it. `on_outcome` is
  /// called inside `publish`, before it returns; nothing is ever `exhausted`.
  std::unique_ptr<Bus> connect(std::string user_id);

 private:
  friend class MemoryBus;
  struct Message {
    Outgoing outgoing;
    std::string user_id;
    std::uint64_t order = 0;
    bool redelivered = false;
    std::string death_queue = {}, death_exchange = {};
  };
  Outcome route(const Outgoing& message, const std::string& user_id);
  void settle(std::uint64_t tag, Verdict verdict);
  void bury(const std::string& queue, Message message);  // with mutex_ held
  void requeue_unsettled(const std::string& queue);      // with mutex_ held

  mutable std::mutex mutex_;
  bool up_ = true;
  std::map<std::pair<std::string, std::string>, std::string> bindings_;
  std::map<std::string, std::deque<Message>> queues_;
  std::map<std::string, OnDelivery> consumers_;
  std::map<std::uint64_t, std::pair<std::string, Message>> unsettled_;  // by tag: queue, message
  std::vector<MemoryBus*> buses_;
  std::uint64_t last_tag_ = 0;
  std::uint64_t last_order_ = 0;
  std::size_t dead_letters_ = 0;
};

}  // namespace educloud::bus
