#pragma once

// Private to the RabbitMQ adapter: the only header that names rabbitmq-c's types.

#include <amqp.h>

#include <memory>
#include <optional>
#include <string>

#include "common/base/result.hpp"
#include "common/bus/rabbit_bus.hpp"

namespace educloud::bus {

std::string to_string(amqp_bytes_t bytes);

/// The text is not copied: it must outlive the call it is an argument of.
amqp_bytes_t bytes_of(const std::string& text);

/// One connection to the broker, logged in, used by one thread. After the first error it is only
/// good for destruction: rabbitmq-c keeps half-read frames that nobody can interpret any more.
class AmqpConnection {
 public:
  /// Connects and logs in within three times `options.connect_timeout` at most. `role` is appended
  /// to the name shown in the broker's console.
  /// Errors: unavailable, timeout; permission_denied (login refused, secret unreadable).
  static Result<std::unique_ptr<AmqpConnection>> open(const RabbitOptions& options, const std::string& role);
  ~AmqpConnection();
  AmqpConnection(const AmqpConnection&) = delete;
  AmqpConnection& operator=(const AmqpConnection&) = delete;

  amqp_connection_state_t state() { return state_; }
  int socket() const { return amqp_get_sockfd(state_); }

  Result<> open_channel(amqp_channel_t channel);
  /// The outcome of the synchronous call that was made last ("basic.consume", for messages).
  Result<> last_reply(std::string_view call);

  /// The next frame if one has come; also sends our heartbeat and notices a missing one of the
  /// broker, so it must be called at least every second.
  /// Errors: the connection is gone, or the broker closed it or a channel (with its reason).
  Result<std::optional<amqp_frame_t>> poll_frame();
  /// What poll_frame returned for this channel has been copied and may be overwritten.
  void release(amqp_channel_t channel);
  /// Says goodbye; waits at most a second for the answer.
  void close();

 private:
  AmqpConnection() = default;
  Result<> connect(const RabbitOptions& options, const std::string& role);
  Result<> open_socket(const RabbitOptions& options);

  amqp_connection_state_t state_ = nullptr;
};

}  // namespace educloud::bus
