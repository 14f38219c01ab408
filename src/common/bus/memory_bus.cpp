#include "common/bus/memory_bus.hpp"

#include <algorithm>

namespace educloud::bus {

/// One daemon's connection to a MemoryBroker. Outcomes are reported inside `publish`.
class MemoryBus : public Bus {
 public:
  MemoryBus(MemoryBroker& broker, std::string user_id) : broker_(broker), user_id_(std::move(user_id)) {}
  ~MemoryBus() override { stop(); }

  Result<> publish(Outgoing message, OnOutcome on_outcome) override {
    if (stopped_) return fail(ErrorCode::unavailable, "the bus has stopped");
    const Outcome outcome = broker_.route(message, user_id_);
    if (on_outcome) on_outcome(outcome);
    return {};
  }
  void subscribe(Subscription subscription) override { subscriptions_.push_back(std::move(subscription)); }
  void start(std::function<void()> on_ready) override {
    on_ready_ = std::move(on_ready);
    {
      const std::lock_guard lock(broker_.mutex_);
      started_ = true;
      broker_.buses_.push_back(this);
      for (const auto& one : subscriptions_) broker_.consumers_[one.queue] = one.on_delivery;
    }
    if (is_ready()) ready();
  }
  void stop() override {
    const std::lock_guard lock(broker_.mutex_);
    stopped_ = true;
    if (std::erase(broker_.buses_, this) == 0) return;
    for (const auto& one : subscriptions_) {
      broker_.consumers_.erase(one.queue);
      broker_.requeue_unsettled(one.queue);
    }
  }
  bool is_ready() const override {
    const std::lock_guard lock(broker_.mutex_);
    return started_ && !stopped_ && broker_.up_;
  }
  void ready() {
    if (on_ready_) on_ready_();
  }

 private:
  MemoryBroker& broker_;
  std::string user_id_;
  std::vector<Subscription> subscriptions_;
  std::function<void()> on_ready_;
  bool started_ = false;  // both under the broker's mutex
  bool stopped_ = false;
};

void MemoryBroker::bind(const std::string& exchange, const std::string& key, const std::string& queue) {
  const std::lock_guard lock(mutex_);
  bindings_[{exchange, key}] = queue;
  queues_[queue];
}

Outcome MemoryBroker::route(const Outgoing& message, const std::string& user_id) {
  const std::lock_guard lock(mutex_);
  if (!up_) return Outcome::failed;
  bool routed = false;
  for (const auto& [from, queue] : bindings_) {
    const auto& [exchange, key] = from;
    const bool all_below =
        key.ends_with(".#") && message.routing_key.starts_with(key.substr(0, key.size() - 1));
    if (exchange != message.exchange || (!all_below && key != message.routing_key)) continue;
    queues_[queue].push_back({message, user_id, ++last_order_, false});
    routed = true;
  }
  return routed ? Outcome::confirmed : Outcome::returned;
}

bool MemoryBroker::deliver_one() {
  OnDelivery consumer;
  Delivery delivery;
  {
    const std::lock_guard lock(mutex_);
    if (!up_) return false;
    auto it = queues_.end();
    for (auto one = queues_.begin(); one != queues_.end(); ++one) {
      if (one->second.empty() || !consumers_.contains(one->first)) continue;
      if (it == queues_.end() || one->second.front().order < it->second.front().order) it = one;
    }
    if (it == queues_.end()) return false;
    consumer = consumers_.at(it->first);
    const std::uint64_t tag = ++last_tag_;
    Message message = std::move(it->second.front());
    it->second.pop_front();
    delivery = {it->first,
                message.outgoing.exchange,
                message.outgoing.routing_key,
                message.user_id,
                message.outgoing.body,
                message.redelivered,
                [this, tag](Verdict verdict) { settle(tag, verdict); }};
    delivery.first_death_queue = message.death_queue;
    delivery.first_death_exchange = message.death_exchange;
    if (!message.death_queue.empty()) delivery.first_death_reason = "rejected";
    unsettled_[tag] = {it->first, std::move(message)};
  }
  consumer(std::move(delivery));
  return true;
}

int MemoryBroker::deliver_all(int most) {
  int count = 0;
  while (count < most && deliver_one()) ++count;
  return count;
}

void MemoryBroker::settle(std::uint64_t tag, Verdict verdict) {
  const std::lock_guard lock(mutex_);
  const auto it = unsettled_.find(tag);
  if (it == unsettled_.end()) return;
  if (verdict == Verdict::reject) {
    ++dead_letters_;
    bury(it->second.first, std::move(it->second.second));
  }
  if (verdict == Verdict::requeue) {
    it->second.second.redelivered = true;
    // First of its queue again, but behind the other queues: what is requeued for ever starves nobody.
    it->second.second.order = ++last_order_;
    queues_[it->second.first].push_front(std::move(it->second.second));
  }
  unsettled_.erase(it);
}

void MemoryBroker::bury(const std::string& queue, Message message) {
  const auto to = bindings_.find({"dead_letter", "#"});
  if (to == bindings_.end() || to->second == queue) return;
  message.death_queue = queue;
  message.death_exchange = std::exchange(message.outgoing.exchange, "dead_letter");
  message.order = ++last_order_;
  message.redelivered = false;
  queues_[to->second].push_back(std::move(message));
}

void MemoryBroker::requeue_unsettled(const std::string& queue) {
  // From the newest to the oldest, so that the oldest ends up first.
  for (auto it = unsettled_.end(); it != unsettled_.begin();) {
    --it;
    if (it->second.first != queue) continue;
    it->second.second.redelivered = true;
    queues_[queue].push_front(std::move(it->second.second));
    it = unsettled_.erase(it);
  }
}

void MemoryBroker::set_up(bool up) {
  std::vector<MemoryBus*> buses;
  {
    const std::lock_guard lock(mutex_);
    if (up_ == up) return;
    up_ = up;
    if (up) {
      buses = buses_;
    } else {
      for (auto& [queue, messages] : queues_) requeue_unsettled(queue);
    }
  }
  for (auto* bus : buses) bus->ready();
}

std::size_t MemoryBroker::depth(const std::string& queue) const {
  const std::lock_guard lock(mutex_);
  const auto it = queues_.find(queue);
  return it == queues_.end() ? 0 : it->second.size();
}

std::size_t MemoryBroker::unsettled() const {
  const std::lock_guard lock(mutex_);
  return unsettled_.size();
}

std::size_t MemoryBroker::dead_letters() const {
  const std::lock_guard lock(mutex_);
  return dead_letters_;
}

std::unique_ptr<Bus> MemoryBroker::connect(std::string user_id) {
  return std::make_unique<MemoryBus>(*this, std::move(user_id));
}

}  // namespace educloud::bus
