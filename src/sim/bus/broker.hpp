#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/bus/bus.hpp"
#include "sim/bus/process.hpp"
#include "sim/bus/rng.hpp"
#include "sim/bus/timeline.hpp"

namespace educloud::sim {

class SimBus;

/// What happens to messages on the wire and in the broker.
struct Weather {
  std::int64_t longest_hop_ms = 2;  ///< each hop takes 0 to this
  double duplicate = 0;             ///< of kept messages: it comes a second time, up to a minute later
  double reorder = 0;               ///< of kept messages: it overtakes some that wait in its queue
  double lose = 0;                  ///< of kept messages: confirmed, and then lost for good
};

struct QueueRules {
  std::int64_t ttl_ms = 0;     ///< 0: for ever
  std::size_t max_length = 0;  ///< the oldest goes; 0: no limit
  bool dead_letters = true;    ///< what it cannot deliver is kept aside
};

struct DeadLetter {
  std::string queue, reason, body;
};

/// A RabbitMQ as far as its clients can tell: bindings, confirms, returns, prefetch, redelivery with a limit
/// of 20, expiry at the head of a queue, silent cuts that both ends notice after 10 s. Seeded: it decides by
/// `rng` when and in which order things arrive.
class Broker {
 public:
  Broker(Timeline& timeline, std::uint64_t seed) : timeline_(timeline), rng_(seed) {}
  ~Broker();
  Broker(const Broker&) = delete;
  Broker& operator=(const Broker&) = delete;

  /// A key that ends in ".#" matches every key with that prefix.
  void bind(const std::string& exchange, const std::string& key, const std::string& queue,
            QueueRules rules = {});
  /// A connection of `user`; it belongs to `process`.
  std::unique_ptr<bus::Bus> connect(std::string user, Process& process);

  // What may befall it.
  Weather weather;
  std::uint64_t duplicated = 0, reordered = 0, lost = 0;  ///< messages so far, by the weather
  /// Nobody reaches it for that long; with `wipe` it comes back without any message.
  void restart(std::int64_t down_ms, bool wipe);
  /// Its memory alarm: nobody may publish for that long.
  void block(std::int64_t for_ms);
  /// Nothing from or to that user's host arrives for that long.
  void cut(const std::string& user, std::int64_t for_ms);
  /// The user's connections break now.
  void hang_up(const std::string& user);
  /// The queue's bindings are missing for that long.
  void unbind(const std::string& queue, std::int64_t for_ms);
  /// Everything above is over.
  void heal();

  /// Messages in work queues, with a consumer or not.
  std::size_t waiting() const;
  const std::vector<DeadLetter>& dead_letters() const { return dead_letters_; }

 private:
  friend class SimBus;
  struct Stored {
    bus::Outgoing message;
    std::string user;
    int deliveries = 0;
    std::int64_t expires_at = 0;  ///< 0: never
  };
  struct Queue {
    QueueRules rules;
    std::deque<Stored> messages;
    SimBus* consumer = nullptr;
    bus::Subscription subscription;
    std::size_t unsettled = 0;
    std::int64_t unbound_until = 0;
  };
  struct Binding {
    std::string exchange, key, queue;
  };
  struct Unsettled {
    std::string queue;
    Stored stored;
    SimBus* bus;
  };

  bool is_up() const { return timeline_.now_ms() >= down_until_; }
  bool is_blocked() const { return timeline_.now_ms() < blocked_until_; }
  bool is_cut(const std::string& user) const;
  std::int64_t hop_ms() { return rng_.between(0, weather.longest_hop_ms); }
  bus::Outcome route(const bus::Outgoing& message, const std::string& user);
  void keep(const std::string& name, Stored stored);
  void pump(const std::string& name);
  void deliver(const std::string& name, SimBus& consumer, Stored stored);
  void settle(std::uint64_t tag, bus::Verdict verdict);
  void bury(const std::string& queue, const Stored& stored, const char* reason);
  void attach(SimBus& bus, const std::vector<bus::Subscription>& subscriptions);
  void detach(SimBus& bus);

  Timeline& timeline_;
  Rng rng_;
  Life life_ = new_life();
  std::vector<Binding> bindings_;
  std::map<std::string, Queue> queues_;
  std::map<std::uint64_t, Unsettled> unsettled_;
  std::vector<SimBus*> buses_;
  std::map<std::string, std::int64_t> cut_until_;
  std::int64_t down_until_ = 0, blocked_until_ = 0;
  std::uint64_t last_tag_ = 0;
  std::vector<DeadLetter> dead_letters_;
};

}  // namespace educloud::sim
