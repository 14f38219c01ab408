#include "common/bus/rabbit_publisher.hpp"

#include <amqp_framing.h>

#include "common/base/limits.hpp"
#include "common/bus/back_off.hpp"
#include "common/obs/log.hpp"
#include "common/obs/metrics.hpp"

namespace educloud::bus {
namespace {

constexpr amqp_channel_t kChannel = 1;
constexpr std::size_t kShortStringBytes = 255;
/// Bodies waiting while the broker is away, beside the limit on their number.
constexpr std::size_t kWaitingBytes = 64u << 20;
constexpr std::chrono::milliseconds kPump{1000};
/// A connection that lived this long was a good one: the next failure starts the back-off anew.
constexpr std::chrono::seconds kStable{10};

void count(const char* what) {
  obs::metrics().count(std::string("educloud_bus_") + what + "_total",
                       std::string("Messages ") + what + " by this process's bus");
}

}  // namespace

RabbitPublisher::RabbitPublisher(RabbitOptions options) : options_(std::move(options)) {}

RabbitPublisher::~RabbitPublisher() {
  stop();
}

Result<> RabbitPublisher::publish(Outgoing message, OnOutcome on_outcome) {
  if (message.body.size() > limits::kMessageBytes) {
    return fail(ErrorCode::too_large, "a message of " + std::to_string(message.body.size()) + " bytes for '" +
                                          message.routing_key + "'; at most " +
                                          std::to_string(limits::kMessageBytes) + " are allowed");
  }
  for (const auto* text : {&message.exchange, &message.routing_key, &message.msgid}) {
    if (text->size() > kShortStringBytes) {
      return fail(ErrorCode::invalid_argument, "exchange, routing key and msgid have at most 255 bytes");
    }
  }
  Pending pending{std::move(message), std::move(on_outcome),
                  std::chrono::steady_clock::now() + options_.confirm_timeout};
  {
    const std::lock_guard lock(mutex_);
    if (closed_) return fail(ErrorCode::unavailable, "the bus has stopped");
    if (waiting_.size() >= options_.queue_limit ||
        waiting_bytes_ + pending.message.body.size() > kWaitingBytes) {
      return fail(ErrorCode::exhausted,
                  std::to_string(waiting_.size()) + " messages wait for the broker already; try again later");
    }
    waiting_bytes_ += pending.message.body.size();
    waiting_.push_back(std::move(pending));
  }
  wakeup_.wake();
  return {};
}

void RabbitPublisher::start(std::function<void()> on_ready) {
  on_ready_ = std::move(on_ready);
  thread_ = std::thread([this] { run(); });
}

void RabbitPublisher::stop() {
  stopping_ = true;
  wakeup_.wake();
  if (thread_.joinable()) thread_.join();
  fail_all();  // what came while there was no thread
}

void RabbitPublisher::run() {
  BackOff back_off;
  while (!stopping_) {
    auto connection = connect();
    if (!connection) {
      const auto wait = back_off.next();
      obs::warn("bus.connect_failed",
                {{"role", "publisher"}, {"error", connection.error().message}, {"retry_ms", wait.count()}});
      pause(wait);
      continue;
    }
    const auto since = std::chrono::steady_clock::now();
    obs::info("bus.connected", {{"role", "publisher"}, {"broker", options_.host}, {"port", options_.port}});
    connected_ = true;
    call_on_ready();
    auto served = serve(**connection);
    connected_ = false;
    blocked_ = false;
    if (served) (*connection)->close();
    connection->reset();
    fail_in_flight();
    if (served) break;  // only a stop ends without an error
    if (std::chrono::steady_clock::now() - since > kStable) back_off.reset();
    const auto wait = back_off.next();
    count("reconnects");
    obs::warn("bus.disconnected",
              {{"role", "publisher"}, {"error", served.error().message}, {"retry_ms", wait.count()}});
    pause(wait);
  }
  fail_all();
}

Result<std::unique_ptr<AmqpConnection>> RabbitPublisher::connect() {
  auto connection = AmqpConnection::open(options_, "publisher");
  if (!connection) return connection;
  auto opened = (*connection)->open_channel(kChannel);
  if (!opened) return fail(opened.error());
  amqp_confirm_select((*connection)->state(), kChannel);
  auto selected = (*connection)->last_reply("confirm.select");
  if (!selected) return fail(selected.error());
  last_tag_ = 0;
  return connection;
}

Result<> RabbitPublisher::serve(AmqpConnection& connection) {
  while (!stopping_) {
    auto read = read_frames(connection);
    if (!read) return read;
    auto sent = send_waiting(connection);
    if (!sent) return sent;
    fail_overdue();
    wakeup_.wait(connection.socket(), kPump);
  }
  return {};
}

Result<> RabbitPublisher::read_frames(AmqpConnection& connection) {
  while (true) {
    auto next = connection.poll_frame();
    if (!next) return fail(next.error());
    if (!*next) return {};
    const amqp_frame_t& frame = **next;
    if (frame.frame_type == AMQP_FRAME_METHOD) {
      on_method(frame.payload.method);
    } else if (frame.frame_type == AMQP_FRAME_HEADER) {
      on_returned_header(*static_cast<amqp_basic_properties_t*>(frame.payload.properties.decoded));
    }  // the body of a returned message: we have it still
    connection.release(frame.channel);
  }
}

void RabbitPublisher::on_method(const amqp_method_t& method) {
  switch (method.id) {
    case AMQP_BASIC_ACK_METHOD: {
      const auto& ack = *static_cast<amqp_basic_ack_t*>(method.decoded);
      confirm(ack.delivery_tag, ack.multiple != 0, true);
      break;
    }
    case AMQP_BASIC_NACK_METHOD: {
      const auto& nack = *static_cast<amqp_basic_nack_t*>(method.decoded);
      confirm(nack.delivery_tag, nack.multiple != 0, false);
      break;
    }
    case AMQP_BASIC_RETURN_METHOD: {
      const auto& back = *static_cast<amqp_basic_return_t*>(method.decoded);
      returned_exchange_ = to_string(back.exchange);
      returned_key_ = to_string(back.routing_key);
      break;
    }
    case AMQP_CONNECTION_BLOCKED_METHOD:
      set_blocked(true, to_string(static_cast<amqp_connection_blocked_t*>(method.decoded)->reason));
      break;
    case AMQP_CONNECTION_UNBLOCKED_METHOD:
      set_blocked(false, {});
      call_on_ready();
      break;
    default: break;
  }
}

void RabbitPublisher::on_returned_header(const amqp_basic_properties_t& properties) {
  const std::string msgid =
      (properties._flags & AMQP_BASIC_MESSAGE_ID_FLAG) != 0 ? to_string(properties.message_id) : "";
  // Returns come in the order of the publishes, so of equal ones the oldest is meant.
  for (auto& [tag, pending] : in_flight_) {
    if (pending.returned || pending.message.msgid != msgid ||
        pending.message.exchange != returned_exchange_ || pending.message.routing_key != returned_key_) {
      continue;
    }
    pending.returned = true;
    return;
  }
}

void RabbitPublisher::confirm(std::uint64_t tag, bool multiple, bool accepted) {
  auto it = multiple ? in_flight_.begin() : in_flight_.find(tag);
  while (it != in_flight_.end() && it->first <= tag) {
    Pending pending = std::move(it->second);
    it = in_flight_.erase(it);
    const Outcome outcome = !accepted          ? Outcome::failed
                            : pending.returned ? Outcome::returned
                                               : Outcome::confirmed;
    finish(std::move(pending), outcome);
    if (!multiple) break;
  }
}

Result<> RabbitPublisher::send_waiting(AmqpConnection& connection) {
  while (!blocked_ && !stopping_ && in_flight_.size() < options_.window) {
    Pending pending;
    {
      const std::lock_guard lock(mutex_);
      if (waiting_.empty()) return {};
      pending = std::move(waiting_.front());
      waiting_.pop_front();
      waiting_bytes_ -= pending.message.body.size();
    }
    if (pending.deadline <= std::chrono::steady_clock::now()) {
      finish(std::move(pending), Outcome::failed);
      continue;
    }
    // Filed before it is sent: a failure half-way leaves it unknown, not unsent.
    const auto& filed = in_flight_[++last_tag_] = std::move(pending);
    auto sent = send(connection, filed.message);
    if (!sent) return sent;
    count("published");
  }
  return {};
}

Result<> RabbitPublisher::send(AmqpConnection& connection, const Outgoing& message) {
  amqp_basic_properties_t properties{};
  properties._flags = AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_DELIVERY_MODE_FLAG |
                      AMQP_BASIC_MESSAGE_ID_FLAG | AMQP_BASIC_USER_ID_FLAG;
  properties.content_type = amqp_cstring_bytes("application/json");
  properties.delivery_mode = message.persistent ? AMQP_DELIVERY_PERSISTENT : AMQP_DELIVERY_NONPERSISTENT;
  properties.message_id = bytes_of(message.msgid);
  properties.user_id = bytes_of(options_.user);
  const std::string expiration = std::to_string(message.expiration.count());
  if (message.expiration.count() > 0) {
    properties._flags |= AMQP_BASIC_EXPIRATION_FLAG;
    properties.expiration = bytes_of(expiration);
  }
  const int status = amqp_basic_publish(connection.state(), kChannel, bytes_of(message.exchange),
                                        bytes_of(message.routing_key), /*mandatory=*/1, /*immediate=*/0,
                                        &properties, bytes_of(message.body));
  if (status != AMQP_STATUS_OK) {
    return fail(ErrorCode::unavailable, std::string("publish: ") + amqp_error_string2(status));
  }
  return {};
}

void RabbitPublisher::set_blocked(bool blocked, const std::string& reason) {
  if (blocked_.exchange(blocked) == blocked) return;
  if (blocked) {
    obs::warn("bus.blocked",
              {{"reason", reason}, {"remedy", "the broker has no memory or disk left: free some there"}});
  } else {
    obs::info("bus.unblocked");
  }
}

void RabbitPublisher::finish(Pending pending, Outcome outcome) {
  switch (outcome) {
    case Outcome::confirmed: count("confirmed"); break;
    case Outcome::returned: count("returned"); break;
    case Outcome::failed: count("failed"); break;
  }
  if (!pending.on_outcome) return;
  try {
    pending.on_outcome(outcome);
  } catch (const std::exception& error) {
    obs::error("bus.outcome_handler_threw", {{"msgid", pending.message.msgid}, {"error", error.what()}});
  }
}

void RabbitPublisher::fail_overdue() {
  const auto now = std::chrono::steady_clock::now();
  // Every message has the same time, so the oldest are the first in both.
  while (!in_flight_.empty() && in_flight_.begin()->second.deadline <= now) {
    Pending pending = std::move(in_flight_.begin()->second);
    in_flight_.erase(in_flight_.begin());
    obs::warn("bus.confirm_timeout",
              {{"msgid", pending.message.msgid}, {"routing_key", pending.message.routing_key}});
    finish(std::move(pending), Outcome::failed);
  }
  while (true) {
    Pending pending;
    {
      const std::lock_guard lock(mutex_);
      if (waiting_.empty() || waiting_.front().deadline > now) return;
      pending = std::move(waiting_.front());
      waiting_.pop_front();
      waiting_bytes_ -= pending.message.body.size();
    }
    finish(std::move(pending), Outcome::failed);
  }
}

void RabbitPublisher::fail_in_flight() {
  auto lost = std::exchange(in_flight_, {});
  for (auto& [tag, pending] : lost) finish(std::move(pending), Outcome::failed);
}

void RabbitPublisher::fail_all() {
  fail_in_flight();
  std::deque<Pending> left;
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    left.swap(waiting_);
    waiting_bytes_ = 0;
  }
  for (auto& pending : left) finish(std::move(pending), Outcome::failed);
}

void RabbitPublisher::pause(std::chrono::milliseconds time) {
  const auto until = std::chrono::steady_clock::now() + time;
  while (!stopping_) {
    fail_overdue();
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
    if (left.count() <= 0) return;
    wakeup_.wait(-1, std::min(left, kPump));
  }
}

void RabbitPublisher::call_on_ready() {
  if (!on_ready_) return;
  try {
    on_ready_();
  } catch (const std::exception& error) {
    obs::error("bus.ready_handler_threw", {{"error", error.what()}});
  }
}

}  // namespace educloud::bus
