#include "common/bus/rabbit_bus.hpp"

#include "common/bus/rabbit_consumer.hpp"
#include "common/bus/rabbit_publisher.hpp"

namespace educloud::bus {
namespace {

class RabbitBus : public Bus {
 public:
  explicit RabbitBus(const RabbitOptions& options) : publisher_(options), consumer_(options) {}
  ~RabbitBus() override { stop(); }

  Result<> publish(Outgoing message, OnOutcome on_outcome) override {
    return publisher_.publish(std::move(message), std::move(on_outcome));
  }
  void subscribe(Subscription subscription) override { consumer_.subscribe(std::move(subscription)); }
  void start(std::function<void()> on_ready) override {
    publisher_.start(std::move(on_ready));
    consumer_.start();
  }
  void stop() override {
    // The publisher first: a handler that acks after its confirm still finds the consumer alive.
    publisher_.stop();
    consumer_.stop();
  }
  bool is_ready() const override { return publisher_.is_ready() && consumer_.is_ready(); }

 private:
  RabbitPublisher publisher_;
  RabbitConsumer consumer_;
};

}  // namespace

std::unique_ptr<Bus> make_rabbit_bus(RabbitOptions options) {
  return std::make_unique<RabbitBus>(std::move(options));
}

}  // namespace educloud::bus
