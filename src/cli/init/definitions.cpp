#include "cli/init/definitions.hpp"

#include <openssl/evp.h>
#include <openssl/sha.h>

namespace educloud::cli {
namespace {

using nlohmann::json;

constexpr const char* kNothing = "^$";
constexpr const char* kOperator = "operator";

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

/// Collects the objects; all but users belong to the vhost that was begun last.
class Builder {
 public:
  void vhost(const std::string& name) {
    vhost_ = name;
    vhosts_.push_back({{"name", name}});
  }
  void user(const std::string& name, const std::string& password, const std::string& tags = "") {
    json one = {{"name", name}, {"hashing_algorithm", "rabbit_password_hashing_sha256"}, {"tags", tags}};
    one["password_hash"] = rabbit_password_hash(name, password);
    users_.push_back(std::move(one));
  }
  void permission(const std::string& user, const std::string& write, const std::string& read) {
    permissions_.push_back(
        {{"user", user}, {"vhost", vhost_}, {"configure", kNothing}, {"write", write}, {"read", read}});
  }
  void topic(const std::string& user, const std::string& exchange, const std::string& write) {
    topics_.push_back(
        {{"user", user}, {"vhost", vhost_}, {"exchange", exchange}, {"write", write}, {"read", kNothing}});
  }
  void exchange(const std::string& name, const std::string& type) {
    json one = {{"name", name}, {"vhost", vhost_}, {"type", type}, {"durable", true}};
    one["auto_delete"] = false;
    one["internal"] = false;
    one["arguments"] = json::object();
    exchanges_.push_back(std::move(one));
  }
  void queue(const std::string& name, const std::string& type) {
    json one = {{"name", name}, {"vhost", vhost_}, {"durable", true}, {"auto_delete", false}};
    one["arguments"] = {{"x-queue-type", type}};
    queues_.push_back(std::move(one));
  }
  void bind(const std::string& exchange, const std::string& key, const std::string& queue) {
    json one = {
        {"source", exchange}, {"vhost", vhost_}, {"destination", queue}, {"destination_type", "queue"}};
    one["routing_key"] = key;
    one["arguments"] = json::object();
    bindings_.push_back(std::move(one));
  }
  void policy(const std::string& name, const std::string& pattern, json definition) {
    json one = {
        {"vhost", vhost_}, {"name", name}, {"pattern", pattern}, {"apply-to", "queues"}, {"priority", 10}};
    one["definition"] = std::move(definition);
    policies_.push_back(std::move(one));
  }
  json finish() && {
    json out;
    out["vhosts"] = std::move(vhosts_);
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
  std::string vhost_;
  json vhosts_ = json::array(), users_ = json::array(), permissions_ = json::array(), topics_ = json::array(),
       exchanges_ = json::array(), queues_ = json::array(), bindings_ = json::array(),
       policies_ = json::array();
};

void add_users(Builder& builder, const InitPlan& plan, const std::map<std::string, std::string>& passwords) {
  for (const auto& user : plan.broker_users())
    builder.user(user, passwords.at(user), user == kOperator ? "monitoring" : "");
}

/// The rights in `vhost`; who has none there cannot even connect to it.
void add_rights(Builder& builder, const InitPlan& plan, const std::string& vhost) {
  const bool is_cloud = vhost == kCloudVhost;
  if (is_cloud) {
    builder.permission("clc", "^(cc_cmd|walrus_cmd)$", "^(clc_(status|heartbeat)_queue|dead_letter_queue)$");
    builder.permission("walrus", "^clc_status$", "^walrus_cmd_queue$");
    builder.topic("walrus", "clc_status", "^taskstatus\\.{username}$");
  }
  builder.permission(kOperator, kNothing, "^(console_tap_queue|dead_letter_queue)$");
  for (const auto& cluster : plan.clusters) {
    const std::string user = "cc-" + cluster.name;
    const bool has_nodes = cluster.vhost == vhost;
    // Host names are [a-z0-9-] only, so nothing in them means anything to a regular expression.
    const std::string from_clc = "cc_cmd_queue\\." + cluster.name, from_nodes = "cc_(status|heartbeat)_queue";
    if (is_cloud && has_nodes) {
      builder.permission(user, "^(nc_cmd|clc_status)$", "^(" + from_clc + "|" + from_nodes + ")$");
    } else if (is_cloud) {
      builder.permission(user, "^clc_status$", "^" + from_clc + "$");
    } else if (has_nodes) {
      builder.permission(user, "^nc_cmd$", "^" + from_nodes + "$");
    }
    if (is_cloud) builder.topic(user, "clc_status", "^(taskstatus|nodestatus|ccstatus)\\..*$");
  }
  for (const auto& node : plan.nodes) {
    if (node.vhost != vhost) continue;
    const std::string user = "nc-" + node.name;
    builder.permission(user, "^cc_status$", "^nc_(cmd|lease)_queue\\." + node.name + "$");
    builder.topic(user, "cc_status", "^(taskstatus|nodestatus)\\.{username}$");
  }
}

void add_queues(Builder& builder, const InitPlan& plan, const std::string& vhost) {
  const bool is_cloud = vhost == kCloudVhost;
  std::vector<std::string> commands = {"nc_cmd"}, levels = {"cc"};
  if (is_cloud) {
    commands.insert(commands.end(), {"cc_cmd", "walrus_cmd"});
    levels.emplace_back("clc");
  }
  for (const auto& name : commands) builder.exchange(name, "direct");
  for (const auto& level : levels) builder.exchange(level + "_status", "topic");
  builder.exchange("dead_letter", "topic");
  for (const auto& node : plan.nodes) {
    if (node.vhost != vhost) continue;
    builder.queue("nc_cmd_queue." + node.name, "quorum");
    builder.bind("nc_cmd", node.name, "nc_cmd_queue." + node.name);
    builder.queue("nc_lease_queue." + node.name, "classic");
    builder.bind("nc_cmd", "lease." + node.name, "nc_lease_queue." + node.name);
  }
  if (is_cloud) {
    for (const auto& cluster : plan.clusters) {
      builder.queue("cc_cmd_queue." + cluster.name, "quorum");
      builder.bind("cc_cmd", cluster.name, "cc_cmd_queue." + cluster.name);
    }
    builder.queue("walrus_cmd_queue", "quorum");
    builder.bind("walrus_cmd", "walrus", "walrus_cmd_queue");
  }
  for (const auto& level : levels) {
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

/// The same in every vhost; where a queue is not, its pattern finds nothing.
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
  for (const auto& vhost : plan.vhosts()) {
    builder.vhost(vhost);
    add_rights(builder, plan, vhost);
    add_queues(builder, plan, vhost);
    add_policies(builder);
  }
  return std::move(builder).finish();
}

Result<std::string> cluster_of_cloud_vhost(std::string_view definitions) {
  const auto parsed = json::parse(definitions, nullptr, /*allow_exceptions=*/false);
  const auto text = [](const json& one, const char* key) {
    const auto at = one.is_object() ? one.find(key) : one.end();
    return at != one.end() && at->is_string() ? at->get<std::string>() : std::string();
  };
  if (!parsed.is_object() || !parsed.contains("permissions"))
    return fail(ErrorCode::corrupt, "these are no broker definitions: remove the file and run init again");
  for (const auto& one : parsed["permissions"]) {
    const std::string user = text(one, "user");
    if (!user.starts_with("cc-") || text(one, "vhost") != kCloudVhost) continue;
    // Older files have all clusters there: it stays the first one's.
    if (text(one, "read").find("cc_(status") != std::string::npos) return user.substr(3);
  }
  return std::string();
}

}  // namespace educloud::cli
