#include "cli/init/definitions.hpp"

#include <openssl/evp.h>
#include <openssl/sha.h>

namespace educloud::cli {
namespace {

using nlohmann::json;

constexpr const char* kVhost = "/";
constexpr const char* kNothing = "^$";

std::string sha256(const std::string& data) {
  std::string out(SHA256_DIGEST_LENGTH, '\0');
  unsigned size = 0;
  EVP_Digest(data.data(), data.size(), reinterpret_cast<unsigned char*>(out.data()), &size, EVP_sha256(),
             nullptr);
  return out;
}

std::string base64(const std::string& data) {
  std::string out(4 * ((data.size() + 2) / 3) + 1, '\0');
  const int size =
      EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                      reinterpret_cast<const unsigned char*>(data.data()), static_cast<int>(data.size()));
  out.resize(static_cast<std::size_t>(size));
  return out;
}

/// Collects the objects; every one belongs to our vhost.
class Builder {
 public:
  void user(const std::string& name, const std::string& password, const std::string& write,
            const std::string& read, const std::string& tags = "") {
    json one = {{"name", name}, {"hashing_algorithm", "rabbit_password_hashing_sha256"}, {"tags", tags}};
    one["password_hash"] = rabbit_password_hash(name, password);
    users_.push_back(std::move(one));
    permissions_.push_back(
        {{"user", name}, {"vhost", kVhost}, {"configure", kNothing}, {"write", write}, {"read", read}});
  }
  void topic(const std::string& user, const std::string& exchange, const std::string& write) {
    topics_.push_back(
        {{"user", user}, {"vhost", kVhost}, {"exchange", exchange}, {"write", write}, {"read", kNothing}});
  }
  void exchange(const std::string& name, const std::string& type) {
    json one = {{"name", name}, {"vhost", kVhost}, {"type", type}, {"durable", true}};
    one["auto_delete"] = false;
    one["internal"] = false;
    one["arguments"] = json::object();
    exchanges_.push_back(std::move(one));
  }
  void queue(const std::string& name, const std::string& type) {
    json one = {{"name", name}, {"vhost", kVhost}, {"durable", true}, {"auto_delete", false}};
    one["arguments"] = {{"x-queue-type", type}};
    queues_.push_back(std::move(one));
  }
  void bind(const std::string& exchange, const std::string& key, const std::string& queue) {
    json one = {
        {"source", exchange}, {"vhost", kVhost}, {"destination", queue}, {"destination_type", "queue"}};
    one["routing_key"] = key;
    one["arguments"] = json::object();
    bindings_.push_back(std::move(one));
  }
  void policy(const std::string& name, const std::string& pattern, json definition) {
    json one = {
        {"vhost", kVhost}, {"name", name}, {"pattern", pattern}, {"apply-to", "queues"}, {"priority", 10}};
    one["definition"] = std::move(definition);
    policies_.push_back(std::move(one));
  }
  json finish() && {
    json out;
    out["vhosts"] = json::array({{{"name", kVhost}}});
    out["users"] = std::move(users_);
    out["permissions"] = std::move(permissions_);
    out["topic_permissions"] = std::move(topics_);
    out["exchanges"] = std::move(exchanges_);
    out["queues"] = std::move(queues_);
    out["bindings"] = std::move(bindings_);
    out["policies"] = std::move(policies_);
    out["parameters"] = json::array();
    return out;
  }

 private:
  json users_ = json::array(), permissions_ = json::array(), topics_ = json::array(),
       exchanges_ = json::array(), queues_ = json::array(), bindings_ = json::array(),
       policies_ = json::array();
};

void add_users(Builder& builder, const InitPlan& plan, const std::map<std::string, std::string>& passwords) {
  builder.user("clc", passwords.at("clc"), "^(cc_cmd|walrus_cmd)$",
               "^(clc_(status|heartbeat)_queue|dead_letter_queue)$");
  builder.user("walrus", passwords.at("walrus"), "^clc_status$", "^walrus_cmd_queue$");
  builder.topic("walrus", "clc_status", "^taskstatus\\.{username}$");
  builder.user("operator", passwords.at("operator"), kNothing, "^(console_tap_queue|dead_letter_queue)$",
               "monitoring");
  for (const auto& cluster : plan.clusters) {
    const std::string user = "cc-" + cluster.name;
    // Host names are [a-z0-9-] only, so nothing in them means anything to a regular expression.
    const std::string read = "^(cc_cmd_queue\\." + cluster.name + "|cc_(status|heartbeat)_queue)$";
    builder.user(user, passwords.at(user), "^(nc_cmd|clc_status)$", read);
    builder.topic(user, "clc_status", "^(taskstatus|nodestatus|ccstatus)\\..*$");
  }
  for (const auto& node : plan.nodes) {
    const std::string user = "nc-" + node.name;
    builder.user(user, passwords.at(user), "^cc_status$", "^nc_(cmd|lease)_queue\\." + node.name + "$");
    builder.topic(user, "cc_status", "^(taskstatus|nodestatus)\\.{username}$");
  }
}

void add_queues(Builder& builder, const InitPlan& plan) {
  for (const auto* name : {"nc_cmd", "cc_cmd", "walrus_cmd"}) builder.exchange(name, "direct");
  for (const auto* name : {"cc_status", "clc_status", "dead_letter"}) builder.exchange(name, "topic");
  for (const auto& node : plan.nodes) {
    builder.queue("nc_cmd_queue." + node.name, "quorum");
    builder.bind("nc_cmd", node.name, "nc_cmd_queue." + node.name);
    builder.queue("nc_lease_queue." + node.name, "classic");
    builder.bind("nc_cmd", "lease." + node.name, "nc_lease_queue." + node.name);
  }
  for (const auto& cluster : plan.clusters) {
    builder.queue("cc_cmd_queue." + cluster.name, "quorum");
    builder.bind("cc_cmd", cluster.name, "cc_cmd_queue." + cluster.name);
  }
  builder.queue("walrus_cmd_queue", "quorum");
  builder.bind("walrus_cmd", "walrus", "walrus_cmd_queue");
  for (const std::string level : {"cc", "clc"}) {
    const std::string exchange = level + "_status";
    builder.queue(level + "_status_queue", "quorum");
    builder.bind(exchange, "taskstatus.#", level + "_status_queue");
    builder.queue(level + "_heartbeat_queue", "classic");
    builder.bind(exchange, "nodestatus.#", level + "_heartbeat_queue");
    builder.bind(exchange, "ccstatus.#", level + "_heartbeat_queue");
    builder.bind(exchange, "#", "console_tap_queue");
  }
  builder.queue("dead_letter_queue", "classic");
  builder.bind("dead_letter", "#", "dead_letter_queue");
  builder.queue("console_tap_queue", "classic");
}

void add_policies(Builder& builder) {
  json work = {{"delivery-limit", 20}, {"max-length", 20'000}, {"overflow", "reject-publish"}};
  work["dead-letter-exchange"] = "dead_letter";
  work["dead-letter-strategy"] = "at-least-once";
  builder.policy("work",
                 "^((nc_cmd_queue|cc_cmd_queue)\\..+|walrus_cmd_queue|cc_status_queue|clc_status_queue)$",
                 std::move(work));
  builder.policy("lease", "^nc_lease_queue\\..+$",
                 {{"message-ttl", 10'000}, {"max-length", 1}, {"overflow", "drop-head"}});
  builder.policy("heartbeat", "^(cc|clc)_heartbeat_queue$",
                 {{"message-ttl", 30'000}, {"max-length", 2000}, {"overflow", "drop-head"}});
  builder.policy("dead-letter", "^dead_letter_queue$", {{"message-ttl", 7 * 24 * 3600 * 1000}});
  builder.policy("console-tap", "^console_tap_queue$",
                 {{"message-ttl", 600'000}, {"max-length", 1000}, {"overflow", "drop-head"}});
}

}  // namespace

std::string rabbit_password_hash(const std::string& user, const std::string& password) {
  const std::string salt = sha256("educloud-salt:" + user + ":" + password).substr(0, 4);
  return base64(salt + sha256(salt + password));
}

json render_definitions(const InitPlan& plan, const std::map<std::string, std::string>& passwords) {
  Builder builder;
  add_users(builder, plan, passwords);
  add_queues(builder, plan);
  add_policies(builder);
  return std::move(builder).finish();
}

}  // namespace educloud::cli
