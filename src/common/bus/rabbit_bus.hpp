#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "common/bus/bus.hpp"

namespace educloud::bus {

/// How to reach RabbitMQ. The password is read from `password_file` at each connect, so that it
/// can be changed without a restart and stands in no config file, log or command line.
struct RabbitOptions {
  std::string host = "127.0.0.1";
  int port = 5672;
  std::string vhost = "/";
  std::string user;
  std::string password_file;
  std::string tls_ca_file = {};  ///< set: TLS, and the broker's certificate must be signed by it
  std::string connection_name;   ///< shown in the broker's console, for instance "nc-nc1"
  std::chrono::seconds heartbeat{5};
  std::chrono::seconds connect_timeout{5};
  /// From `publish` to its outcome; an attempt to connect that is under way may add to it.
  std::chrono::seconds confirm_timeout{30};
  std::size_t window = 64;           ///< unconfirmed publishes in flight
  std::size_t queue_limit = 10'000;  ///< publishes waiting here while the broker is away
  /// Held back before a requeue, so that a fault of a second does not use up the delivery limit.
  std::chrono::milliseconds requeue_delay{1000};
};

/// Bus over rabbitmq-c: one thread and connection publishes with confirms and `mandatory`, another
/// consumes with manual acks.
std::unique_ptr<Bus> make_rabbit_bus(RabbitOptions options);

}  // namespace educloud::bus
