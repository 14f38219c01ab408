#include "sim/bus/broker.hpp"

#include "sim/bus/sim_bus.hpp"

namespace educloud::sim {
namespace {

constexpr std::int64_t kNoticeMs = 10'000;  ///< two AMQP heartbeats
constexpr int kDeliveryLimit = 20;
constexpr std::int64_t kLateCopyMs = 60'000;

bool matches(const std::string& pattern, const std::string& key) {
  if (!pattern.ends_with(".#")) return pattern == key;
  return key.starts_with(pattern.substr(0, pattern.size() - 1));
}

}  // namespace

Broker::~Broker() = default;

void Broker::bind(const std::string& exchange, const std::string& key, const std::string& queue,
                  QueueRules rules) {
  bindings_.push_back({exchange, key, queue});
  queues_[queue].rules = rules;
}

std::unique_ptr<bus::Bus> Broker::connect(std::string user, Process& process) {
  return std::make_unique<SimBus>(*this, std::move(user), process);
}

bool Broker::is_cut(const std::string& user) const {
  const auto at = cut_until_.find(user);
  return at != cut_until_.end() && timeline_.now_ms() < at->second;
}

bus::Outcome Broker::route(const bus::Outgoing& message, const std::string& user) {
  bool routed = false;
  for (const auto& binding : bindings_) {
    if (binding.exchange != message.exchange || !matches(binding.key, message.routing_key)) continue;
    auto& queue = queues_.at(binding.queue);
    if (timeline_.now_ms() < queue.unbound_until) continue;
    routed = true;
    const std::int64_t ttl = queue.rules.ttl_ms;
    std::int64_t life = message.expiration.count();
    if (ttl > 0) life = life > 0 ? std::min(life, ttl) : ttl;
    const Stored stored{message, user, 0, life > 0 ? timeline_.now_ms() + life : 0};
    if (rng_.chance(weather.duplicate)) {
      ++duplicated;
      timeline_.after(life_, rng_.between(1, kLateCopyMs),
                      [this, name = binding.queue, stored] { keep(name, stored); });
    }
    if (rng_.chance(weather.lose)) {
      ++lost;
    } else {
      keep(binding.queue, stored);
    }
  }
  return routed ? bus::Outcome::confirmed : bus::Outcome::returned;
}

void Broker::keep(const std::string& name, Stored stored) {
  auto& queue = queues_.at(name);
  auto at = queue.messages.end();
  if (!queue.messages.empty() && rng_.chance(weather.reorder)) {
    ++reordered;
    at -= rng_.between(1, static_cast<std::int64_t>(std::min<std::size_t>(4, queue.messages.size())));
  }
  queue.messages.insert(at, std::move(stored));
  if (queue.rules.max_length > 0 && queue.messages.size() > queue.rules.max_length)
    queue.messages.pop_front();
  pump(name);
}

void Broker::bury(const std::string& queue, const Stored& stored, const char* reason) {
  timeline_.note(reason);
  if (queues_.at(queue).rules.dead_letters) dead_letters_.push_back({queue, reason, stored.message.body});
}

void Broker::pump(const std::string& name) {
  auto& queue = queues_.at(name);
  while (!queue.messages.empty() && queue.consumer != nullptr && is_up() &&
         queue.unsettled < queue.subscription.prefetch) {
    Stored stored = std::move(queue.messages.front());
    queue.messages.pop_front();
    if (stored.expires_at != 0 && stored.expires_at <= timeline_.now_ms()) {
      bury(name, stored, "expired");
      continue;
    }
    ++queue.unsettled;
    deliver(name, *queue.consumer, std::move(stored));
  }
}

void Broker::deliver(const std::string& name, SimBus& consumer, Stored stored) {
  const std::uint64_t tag = ++last_tag_;
  bus::Delivery delivery;
  delivery.queue = name;
  delivery.exchange = stored.message.exchange;
  delivery.routing_key = stored.message.routing_key;
  delivery.user_id = stored.user;
  delivery.body = stored.message.body;
  delivery.redelivered = stored.deliveries > 0;
  delivery.settle = [this, tag, bus = &consumer, alive = std::weak_ptr<const int>(consumer.life()),
                     session = consumer.session()](bus::Verdict verdict) {
    if (alive.expired()) return;
    bus->process().crash_point();
    bus->from_consumer(session, [this, tag, verdict] { settle(tag, verdict); });
    bus->process().crash_point();
  };
  ++stored.deliveries;
  unsettled_[tag] = {name, std::move(stored), &consumer};
  timeline_.note(name);
  auto& handler = queues_.at(name).subscription.on_delivery;
  consumer.to_consumer([&handler, delivery = std::move(delivery)] { handler(delivery); });
}

void Broker::settle(std::uint64_t tag, bus::Verdict verdict) {
  const auto at = unsettled_.find(tag);
  if (at == unsettled_.end()) return;
  Unsettled one = std::move(at->second);
  unsettled_.erase(at);
  auto& queue = queues_.at(one.queue);
  --queue.unsettled;
  if (verdict == bus::Verdict::reject) bury(one.queue, one.stored, "rejected");
  if (verdict != bus::Verdict::requeue) return pump(one.queue);
  if (one.stored.deliveries >= kDeliveryLimit) {
    bury(one.queue, one.stored, "delivery_limit");
    return pump(one.queue);
  }
  queue.messages.push_front(std::move(one.stored));
  timeline_.after(life_, 50, [this, name = one.queue] { pump(name); });
}

void Broker::attach(SimBus& bus, const std::vector<bus::Subscription>& subscriptions) {
  for (const auto& one : subscriptions) {
    auto& queue = queues_[one.queue];
    queue.consumer = &bus;
    queue.subscription = one;
    pump(one.queue);
  }
}

void Broker::detach(SimBus& bus) {
  for (auto& [name, queue] : queues_) {
    if (queue.consumer == &bus) queue.consumer = nullptr;
  }
  // From the newest to the oldest, so that the oldest ends up first.
  for (auto at = unsettled_.end(); at != unsettled_.begin();) {
    --at;
    if (at->second.bus != &bus) continue;
    auto& queue = queues_.at(at->second.queue);
    --queue.unsettled;
    if (at->second.stored.deliveries >= kDeliveryLimit) {
      bury(at->second.queue, at->second.stored, "delivery_limit");
    } else {
      queue.messages.push_front(std::move(at->second.stored));
    }
    at = unsettled_.erase(at);
  }
}

void Broker::restart(std::int64_t down_ms, bool wipe) {
  down_until_ = std::max(down_until_, timeline_.now_ms() + down_ms);
  for (auto* bus : buses_) bus->go_offline();
  if (!wipe) return;
  for (auto& [name, queue] : queues_) queue.messages.clear();
}

void Broker::block(std::int64_t for_ms) {
  blocked_until_ = std::max(blocked_until_, timeline_.now_ms() + for_ms);
  timeline_.after(life_, blocked_until_ - timeline_.now_ms(), [this] {
    for (auto* bus : buses_) bus->flush();
  });
}

void Broker::cut(const std::string& user, std::int64_t for_ms) {
  auto& until = cut_until_[user];
  until = std::max(until, timeline_.now_ms() + for_ms);
  timeline_.after(life_, kNoticeMs, [this, user] {
    if (is_cut(user)) hang_up(user);
  });
}

void Broker::hang_up(const std::string& user) {
  for (auto* bus : buses_) {
    if (bus->user() == user) bus->go_offline();
  }
}

void Broker::unbind(const std::string& queue, std::int64_t for_ms) {
  auto& until = queues_[queue].unbound_until;
  until = std::max(until, timeline_.now_ms() + for_ms);
}

void Broker::heal() {
  weather = {};
  down_until_ = 0;
  cut_until_.clear();
  for (auto& [name, queue] : queues_) queue.unbound_until = 0;
  blocked_until_ = 0;
  for (auto* bus : buses_) bus->flush();
}

std::size_t Broker::waiting() const {
  std::size_t sum = 0;
  for (const auto& [name, queue] : queues_) {
    if (queue.rules.dead_letters) sum += queue.messages.size() + queue.unsettled;
  }
  return sum;
}

}  // namespace educloud::sim
