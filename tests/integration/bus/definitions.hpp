#pragma once

#include <nlohmann/json.hpp>

// Pieces of RabbitMQ's definitions file.
namespace educloud::test {

inline nlohmann::json queue(const std::string& name, nlohmann::json arguments = nlohmann::json::object()) {
  return {{"name", name},
          {"vhost", "/"},
          {"durable", true},
          {"auto_delete", false},
          {"arguments", std::move(arguments)}};
}

/// A work queue as CONTRACT.md has them: quorum, delivery limit, dead letters.
inline nlohmann::json work_queue(const std::string& name) {
  return queue(
      name,
      {{"x-queue-type", "quorum"}, {"x-delivery-limit", 20}, {"x-dead-letter-exchange", "dead_letter"}});
}

inline nlohmann::json bind(const std::string& exchange, const std::string& queue_name,
                           const std::string& key) {
  return {{"source", exchange},          {"vhost", "/"},       {"destination", queue_name},
          {"destination_type", "queue"}, {"routing_key", key}, {"arguments", nlohmann::json::object()}};
}

inline nlohmann::json exchange(const std::string& name, const std::string& type) {
  return {{"name", name},
          {"vhost", "/"},
          {"type", type},
          {"durable", true},
          {"auto_delete", false},
          {"internal", false},
          {"arguments", nlohmann::json::object()}};
}

}  // namespace educloud::test
