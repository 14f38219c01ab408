#pragma once

#include <atomic>
#include <chrono>
#include <deque>
#include <map>
#include <mutex>
#include <thread>

#include "common/bus/amqp_connection_impl.hpp"
#include "common/bus/wakeup.hpp"

namespace educloud::bus {

/// The publishing half of the bus: one thread, one connection at a time, one channel with confirms.
class RabbitPublisher {
 public:
  explicit RabbitPublisher(RabbitOptions options);
  ~RabbitPublisher();

  Result<> publish(Outgoing message, OnOutcome on_outcome);
  void start(std::function<void()> on_ready);
  void stop();
  bool is_ready() const { return connected_ && !blocked_; }

 private:
  using Instant = std::chrono::steady_clock::time_point;
  struct Pending {
    Outgoing message;
    OnOutcome on_outcome;
    Instant deadline;
    bool returned = false;
  };

  void run();
  /// Publishes until the connection fails (the error) or we stop.
  Result<> serve(AmqpConnection& connection);
  Result<std::unique_ptr<AmqpConnection>> connect();
  Result<> read_frames(AmqpConnection& connection);
  void on_method(const amqp_method_t& method);
  void on_returned_header(const amqp_basic_properties_t& properties);
  void confirm(std::uint64_t tag, bool multiple, bool accepted);
  Result<> send_waiting(AmqpConnection& connection);
  Result<> send(AmqpConnection& connection, const Outgoing& message);
  void set_blocked(bool blocked, const std::string& reason);
  void finish(Pending pending, Outcome outcome);
  void fail_overdue();
  void fail_in_flight();
  void fail_all();
  void pause(std::chrono::milliseconds time);
  void call_on_ready();

  const RabbitOptions options_;
  std::function<void()> on_ready_;
  Wakeup wakeup_;
  std::thread thread_;
  std::atomic<bool> stopping_{false};
  std::atomic<bool> connected_{false};
  std::atomic<bool> blocked_{false};

  std::mutex mutex_;  // guards the three below; never held while calling anybody
  std::deque<Pending> waiting_;
  std::size_t waiting_bytes_ = 0;
  bool closed_ = false;

  // Of the thread alone, for the present connection.
  std::map<std::uint64_t, Pending> in_flight_;  // by delivery tag
  std::uint64_t last_tag_ = 0;
  std::string returned_exchange_, returned_key_;  // of the basic.return whose header comes next
};

}  // namespace educloud::bus
