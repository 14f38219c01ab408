#pragma once

#include <atomic>
#include <chrono>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "common/bus/amqp_connection_impl.hpp"
#include "common/bus/wakeup.hpp"

namespace educloud::bus {

/// The consuming half of the bus: one thread, one connection at a time, one channel per
/// subscription, so that each has its own prefetch.
class RabbitConsumer {
 public:
  explicit RabbitConsumer(RabbitOptions options);
  ~RabbitConsumer();

  void subscribe(Subscription subscription);
  void start();
  void stop();
  bool is_ready() const { return connected_ || subscriptions_.empty(); }

 private:
  using Instant = std::chrono::steady_clock::time_point;
  struct Settlement {
    amqp_channel_t channel = 0;
    std::uint64_t tag = 0;
    Verdict verdict = Verdict::ack;
  };
  /// What the deliveries of one connection share with its thread. Closed with the connection, so a
  /// late `settle` falls into the void and never reaches another connection's tags. Its size is
  /// bounded by the prefetches.
  struct Inbox {
    std::mutex mutex;
    bool open = true;
    std::vector<Settlement> settled;
    std::shared_ptr<Wakeup> wakeup;
  };
  class Settler;
  /// A message of which not all frames have come yet.
  struct Partial {
    Delivery delivery;
    std::uint64_t tag = 0;
    std::uint64_t left_bytes = 0;
    bool too_large = false;
    bool in_body = false;
  };

  void run();
  Result<std::unique_ptr<AmqpConnection>> connect();
  Result<> serve(AmqpConnection& connection);
  Result<> read_frames(AmqpConnection& connection);
  Result<> on_frame(AmqpConnection& connection, const amqp_frame_t& frame);
  Result<> hand_over(AmqpConnection& connection, amqp_channel_t channel, Partial partial);
  Result<> settle_all(AmqpConnection& connection);
  Result<> settle(AmqpConnection& connection, const Settlement& settlement);
  Result<> ack_all(AmqpConnection& connection, amqp_channel_t channel, const std::set<std::uint64_t>& tags);
  void close_inbox();
  void pause(std::chrono::milliseconds time);

  const RabbitOptions options_;
  std::vector<Subscription> subscriptions_;
  const std::shared_ptr<Wakeup> wakeup_ = std::make_shared<Wakeup>();
  std::thread thread_;
  std::atomic<bool> stopping_{false};
  std::atomic<bool> connected_{false};

  // Of the thread alone, for the present connection.
  std::shared_ptr<Inbox> inbox_;
  std::map<amqp_channel_t, Partial> partials_;
  std::map<amqp_channel_t, std::set<std::uint64_t>>
      unsettled_;  ///< tags handed over; the prefetch bounds them
  std::deque<std::pair<Instant, Settlement>> delayed_;
};

}  // namespace educloud::bus
