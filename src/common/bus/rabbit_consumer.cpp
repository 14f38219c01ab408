#include "common/bus/rabbit_consumer.hpp"

#include <amqp_framing.h>

#include "common/base/limits.hpp"
#include "common/bus/back_off.hpp"
#include "common/obs/log.hpp"
#include "common/obs/metrics.hpp"

namespace educloud::bus {
namespace {

constexpr std::chrono::milliseconds kPump{1000};
constexpr std::chrono::seconds kStable{10};

void count(const char* what) {
  obs::metrics().count(std::string("educloud_bus_") + what + "_total",
                       std::string("Messages ") + what + " by this process's bus");
}

/// What the broker wrote into the headers when it dead-lettered the message.
void read_death(const amqp_table_t& headers, Delivery& delivery) {
  constexpr std::size_t kLongest = 255;  // of a queue's or exchange's name
  for (int i = 0; i < headers.num_entries; ++i) {
    const auto& [key, value] = headers.entries[i];
    if (value.kind != AMQP_FIELD_KIND_UTF8) continue;
    const std::string name = to_string(key);
    std::string* out = name == "x-first-death-queue"      ? &delivery.first_death_queue
                       : name == "x-first-death-reason"   ? &delivery.first_death_reason
                       : name == "x-first-death-exchange" ? &delivery.first_death_exchange
                                                          : nullptr;
    if (out != nullptr) *out = to_string(value.value.bytes).substr(0, kLongest);
  }
}

}  // namespace

/// Shared by the copies of one delivery's `settle`: the first call counts. If all copies go without
/// a call, the message is requeued, so that a handler that loses one cannot stall its queue.
class RabbitConsumer::Settler {
 public:
  Settler(std::shared_ptr<Inbox> inbox, amqp_channel_t channel, std::uint64_t tag)
      : inbox_(std::move(inbox)), channel_(channel), tag_(tag) {}
  ~Settler() { settle(Verdict::requeue); }
  Settler(const Settler&) = delete;
  Settler& operator=(const Settler&) = delete;

  void settle(Verdict verdict) {
    if (done_.exchange(true)) return;
    {
      const std::lock_guard lock(inbox_->mutex);
      if (!inbox_->open) return;
      inbox_->settled.push_back({channel_, tag_, verdict});
    }
    inbox_->wakeup->wake();
  }

 private:
  std::shared_ptr<Inbox> inbox_;
  amqp_channel_t channel_;
  std::uint64_t tag_;
  std::atomic<bool> done_{false};
};

RabbitConsumer::RabbitConsumer(RabbitOptions options) : options_(std::move(options)) {}

RabbitConsumer::~RabbitConsumer() {
  stop();
}

void RabbitConsumer::subscribe(Subscription subscription) {
  subscriptions_.push_back(std::move(subscription));
}

void RabbitConsumer::start() {
  if (!subscriptions_.empty()) thread_ = std::thread([this] { run(); });
}

void RabbitConsumer::stop() {
  stopping_ = true;
  wakeup_->wake();
  if (thread_.joinable()) thread_.join();
}

void RabbitConsumer::run() {
  BackOff back_off;
  while (!stopping_) {
    auto connection = connect();
    if (!connection) {
      close_inbox();
      const auto wait = back_off.next();
      obs::warn("bus.connect_failed",
                {{"role", "consumer"}, {"error", connection.error().message}, {"retry_ms", wait.count()}});
      pause(wait);
      continue;
    }
    const auto since = std::chrono::steady_clock::now();
    obs::info("bus.connected", {{"role", "consumer"}, {"broker", options_.host}, {"port", options_.port}});
    connected_ = true;
    auto served = serve(**connection);
    connected_ = false;
    if (served) served = settle_all(**connection);
    close_inbox();
    if (served) (*connection)->close();
    connection->reset();
    if (stopping_) break;
    if (std::chrono::steady_clock::now() - since > kStable) back_off.reset();
    const auto wait = back_off.next();
    count("reconnects");
    obs::warn("bus.disconnected",
              {{"role", "consumer"}, {"error", served.error().message}, {"retry_ms", wait.count()}});
    pause(wait);
  }
}

void RabbitConsumer::close_inbox() {
  partials_.clear();
  unsettled_.clear();
  delayed_.clear();
  if (!inbox_) return;
  const std::lock_guard lock(inbox_->mutex);
  inbox_->open = false;
  inbox_->settled.clear();
}

Result<std::unique_ptr<AmqpConnection>> RabbitConsumer::connect() {
  auto connection = AmqpConnection::open(options_, "consumer");
  if (!connection) return connection;
  inbox_ = std::make_shared<Inbox>();
  inbox_->wakeup = wakeup_;
  amqp_channel_t channel = 0;
  for (const auto& subscription : subscriptions_) {
    ++channel;
    auto opened = (*connection)->open_channel(channel);
    if (!opened) return fail(opened.error());
    amqp_basic_qos((*connection)->state(), channel, 0, subscription.prefetch, /*global=*/0);
    auto limited = (*connection)->last_reply("basic.qos");
    if (!limited) return fail(limited.error());
    amqp_basic_consume((*connection)->state(), channel, bytes_of(subscription.queue), amqp_empty_bytes,
                       /*no_local=*/0,
                       /*no_ack=*/0, /*exclusive=*/0, amqp_empty_table);
    auto consumes = (*connection)->last_reply("consume from " + subscription.queue);
    if (!consumes) return fail(consumes.error());
  }
  return connection;
}

Result<> RabbitConsumer::serve(AmqpConnection& connection) {
  while (!stopping_) {
    auto read = read_frames(connection);
    if (!read) return read;
    auto settled = settle_all(connection);
    if (!settled) return settled;
    auto wait = kPump;
    if (!delayed_.empty()) {
      const auto due = delayed_.front().first - std::chrono::steady_clock::now();
      wait = std::min(wait, std::chrono::ceil<std::chrono::milliseconds>(due));
    }
    wakeup_->wait(connection.socket(), wait);
  }
  return {};
}

Result<> RabbitConsumer::read_frames(AmqpConnection& connection) {
  while (!stopping_) {
    auto next = connection.poll_frame();
    if (!next) return fail(next.error());
    if (!*next) return {};
    auto ok = on_frame(connection, **next);
    connection.release((*next)->channel);
    if (!ok) return ok;
  }
  return {};
}

Result<> RabbitConsumer::on_frame(AmqpConnection& connection, const amqp_frame_t& frame) {
  if (frame.frame_type == AMQP_FRAME_METHOD) {
    if (frame.payload.method.id == AMQP_BASIC_CANCEL_METHOD) {
      return fail(ErrorCode::not_found, "the broker cancelled the consumer of " +
                                            (frame.channel >= 1 && frame.channel <= subscriptions_.size()
                                                 ? subscriptions_[frame.channel - 1u].queue
                                                 : std::string("a queue")) +
                                            "; was the queue deleted?");
    }
    if (frame.payload.method.id != AMQP_BASIC_DELIVER_METHOD) return {};
    const auto& deliver = *static_cast<amqp_basic_deliver_t*>(frame.payload.method.decoded);
    Partial partial;
    partial.tag = deliver.delivery_tag;
    partial.delivery.exchange = to_string(deliver.exchange);
    partial.delivery.routing_key = to_string(deliver.routing_key);
    partial.delivery.redelivered = deliver.redelivered != 0;
    partials_[frame.channel] = std::move(partial);
    return {};
  }
  const auto it = partials_.find(frame.channel);
  if (it == partials_.end()) return {};
  Partial& partial = it->second;
  if (frame.frame_type == AMQP_FRAME_HEADER) {
    const auto& properties = *static_cast<amqp_basic_properties_t*>(frame.payload.properties.decoded);
    if ((properties._flags & AMQP_BASIC_USER_ID_FLAG) != 0)
      partial.delivery.user_id = to_string(properties.user_id);
    if ((properties._flags & AMQP_BASIC_HEADERS_FLAG) != 0) read_death(properties.headers, partial.delivery);
    partial.left_bytes = frame.payload.properties.body_size;
    partial.too_large = partial.left_bytes > limits::kMessageBytes;
    if (partial.too_large) partial.delivery.sent_bytes = partial.left_bytes;
    partial.in_body = true;
    partial.delivery.body.reserve(std::min<std::uint64_t>(partial.left_bytes, limits::kMessageBytes));
  } else if (frame.frame_type == AMQP_FRAME_BODY && partial.in_body) {
    const auto& fragment = frame.payload.body_fragment;
    partial.left_bytes -= std::min<std::uint64_t>(partial.left_bytes, fragment.len);
    const auto room = limits::kMessageBytes - partial.delivery.body.size();
    partial.delivery.body.append(static_cast<const char*>(fragment.bytes), std::min(room, fragment.len));
  }
  if (!partial.in_body || partial.left_bytes > 0) return {};
  Partial whole = std::move(partial);
  partials_.erase(it);
  return hand_over(connection, frame.channel, std::move(whole));
}

Result<> RabbitConsumer::hand_over(AmqpConnection& connection, amqp_channel_t channel, Partial partial) {
  const auto& subscription = subscriptions_.at(channel - 1u);
  partial.delivery.queue = subscription.queue;
  if (partial.too_large && !subscription.cut_oversized) {
    obs::warn("bus.message_too_large", {{"queue", subscription.queue},
                                        {"routing_key", partial.delivery.routing_key},
                                        {"user_id", partial.delivery.user_id},
                                        {"limit_bytes", limits::kMessageBytes}});
    return settle(connection, {channel, partial.tag, Verdict::reject});
  }
  count("consumed");
  unsettled_[channel].insert(partial.tag);
  auto settler = std::make_shared<Settler>(inbox_, channel, partial.tag);
  partial.delivery.settle = [settler](Verdict verdict) { settler->settle(verdict); };
  try {
    subscription.on_delivery(std::move(partial.delivery));
  } catch (const std::exception& error) {
    obs::error("bus.delivery_handler_threw", {{"queue", subscription.queue}, {"error", error.what()}});
    settler->settle(Verdict::reject);
  }
  return {};
}

Result<> RabbitConsumer::settle_all(AmqpConnection& connection) {
  std::vector<Settlement> settled;
  {
    const std::lock_guard lock(inbox_->mutex);
    settled.swap(inbox_->settled);
  }
  const auto now = std::chrono::steady_clock::now();
  std::map<amqp_channel_t, std::set<std::uint64_t>> acked;
  for (const auto& one : settled) {
    if (one.verdict == Verdict::requeue && options_.requeue_delay.count() > 0) {
      delayed_.emplace_back(now + options_.requeue_delay, one);
      continue;
    }
    if (one.verdict == Verdict::ack) {
      acked[one.channel].insert(one.tag);
      continue;
    }
    auto ok = settle(connection, one);
    if (!ok) return ok;
  }
  for (const auto& [channel, tags] : acked) {
    auto ok = ack_all(connection, channel, tags);
    if (!ok) return ok;
  }
  while (!delayed_.empty() && (delayed_.front().first <= now || stopping_)) {
    auto ok = settle(connection, delayed_.front().second);
    if (!ok) return ok;
    delayed_.pop_front();
  }
  return {};
}

// One ack for all up to a tag, as far as nothing below it is still at work: a quorum queue writes each ack to
// its log.
Result<> RabbitConsumer::ack_all(AmqpConnection& connection, amqp_channel_t channel,
                                 const std::set<std::uint64_t>& tags) {
  auto& unsettled = unsettled_[channel];
  for (const auto tag : tags) unsettled.erase(tag);
  const auto rest = unsettled.empty() ? tags.end() : tags.lower_bound(*unsettled.begin());
  if (rest != tags.begin()) {
    const int status = amqp_basic_ack(connection.state(), channel, *std::prev(rest), /*multiple=*/1);
    if (status != AMQP_STATUS_OK)
      return fail(ErrorCode::unavailable, std::string("settle: ") + amqp_error_string2(status));
  }
  for (auto at = rest; at != tags.end(); ++at) {
    auto ok = settle(connection, {channel, *at, Verdict::ack});
    if (!ok) return ok;
  }
  return {};
}

Result<> RabbitConsumer::settle(AmqpConnection& connection, const Settlement& settlement) {
  int status = AMQP_STATUS_OK;
  unsettled_[settlement.channel].erase(settlement.tag);
  switch (settlement.verdict) {
    case Verdict::ack:
      status = amqp_basic_ack(connection.state(), settlement.channel, settlement.tag, 0);
      break;
    case Verdict::requeue:
      count("requeued");
      status = amqp_basic_reject(connection.state(), settlement.channel, settlement.tag, 1);
      break;
    case Verdict::reject:
      count("rejected");
      status = amqp_basic_reject(connection.state(), settlement.channel, settlement.tag, 0);
      break;
  }
  if (status != AMQP_STATUS_OK) {
    return fail(ErrorCode::unavailable, std::string("settle: ") + amqp_error_string2(status));
  }
  return {};
}

void RabbitConsumer::pause(std::chrono::milliseconds time) {
  const auto until = std::chrono::steady_clock::now() + time;
  while (!stopping_) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
    if (left.count() <= 0) return;
    wakeup_->wait(-1, left);
  }
}

}  // namespace educloud::bus
