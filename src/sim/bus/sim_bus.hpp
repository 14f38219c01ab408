#pragma once

#include <map>
#include <vector>

#include "sim/bus/broker.hpp"

namespace educloud::sim {

/// One daemon's connections to a Broker. What was sent when they break may have arrived or not.
class SimBus : public bus::Bus {
 public:
  SimBus(Broker& broker, std::string user, Process& process);
  ~SimBus() override;

  Result<> publish(bus::Outgoing message, bus::OnOutcome on_outcome) override;
  void subscribe(bus::Subscription subscription) override;
  void start(std::function<void()> on_ready) override;
  void stop() override;
  bool is_ready() const override;

  const std::string& user() const { return user_; }
  bool is_online() const { return online_; }
  /// The connections break; it tries again by itself.
  void go_offline();
  /// What waits is sent, if that is possible now.
  void flush();
  /// A message to the consumer: `what` happens on its side, unless the connections break on the way.
  void to_consumer(std::function<void()> what);
  /// An answer of the consumer, in the same way.
  void from_consumer(std::uint64_t session, std::function<void()> what);
  std::uint64_t session() const { return session_; }
  const Life& life() const { return life_; }
  Process& process() { return process_; }

 private:
  struct Pending {
    bus::Outgoing message;
    bus::OnOutcome on_outcome;
    std::int64_t deadline = 0;
    bool sent = false;
  };
  void connect_later();
  void send(std::uint64_t id, Pending& pending);
  void finish(std::uint64_t id, bus::Outcome outcome);
  void fail_if(const std::function<bool(const Pending&)>& is_lost);
  /// `arrive` after a hop in the order of the calls with the same `free_at`; `lost` if the session ends
  /// first.
  void carry(std::int64_t& free_at, std::uint64_t session, std::function<void()> arrive,
             std::function<void()> lost);
  void land(std::uint64_t session, std::function<void()> arrive, std::function<void()> lost);

  Broker& broker_;
  const std::string user_;
  Process& process_;
  Life life_ = new_life();
  std::vector<bus::Subscription> subscriptions_;
  std::function<void()> on_ready_;
  bool started_ = false, stopped_ = false, online_ = false;
  std::uint64_t session_ = 0, last_id_ = 0;
  std::map<std::uint64_t, Pending> pending_;
  // When the last thing on each way arrives: TCP keeps the order.
  std::int64_t publish_free_ = 0, confirm_free_ = 0, deliver_free_ = 0, settle_free_ = 0;
};

}  // namespace educloud::sim
