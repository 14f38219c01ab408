#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include <nlohmann/json.hpp>

namespace educloud::test {

/// A RabbitMQ of our own with the given definitions, on loopback, ended with this object.
class Broker {
 public:
  Broker(std::filesystem::path directory, const std::filesystem::path& definitions);
  ~Broker();
  bool is_up() const { return port_ > 0; }
  int port() const { return port_; }
  const std::string& log() const { return log_; }
  /// From the management API; null if it refuses.
  nlohmann::json get_json(const std::string& path, const std::string& user,
                          const std::string& password) const;

 private:
  std::filesystem::path directory_;
  int port_ = 0, management_port_ = 0;
  std::string log_;
};

/// One login. Calls return "ok" or the AMQP reply code of the refusal ("403"); each uses a channel of its
/// own.
class Client {
 public:
  Client(int port, const std::string& user, const std::string& password, const std::string& vhost = "/");
  ~Client();
  bool is_open() const;
  std::string consume(const std::string& queue);
  std::string declare(const std::string& queue);
  /// With a confirm, and the property user_id.
  std::string publish(const std::string& exchange, const std::string& key, const std::string& user_id);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace educloud::test
