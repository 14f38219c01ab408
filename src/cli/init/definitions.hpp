#pragma once

#include <map>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "cli/init/options.hpp"

namespace educloud::cli {

/// RabbitMQ's own hash of a password: base64(salt || sha256(salt || password)), algorithm
/// rabbit_password_hashing_sha256. The salt is derived from user and password instead of drawn, so that
/// a second `init` writes the same file; our passwords are 256 random bits, which need no salt.
std::string rabbit_password_hash(const std::string& user, const std::string& password);

/// The broker's objects: users, rights, exchanges, queues, bindings and policies for every host of `plan`,
/// as `rabbitmqctl import_definitions` reads them. `passwords`: by login, for every `plan.broker_users()`.
/// Names and rights are a contract with the daemons and with operators' scripts.
nlohmann::json render_definitions(const InitPlan& plan, const std::map<std::string, std::string>& passwords);

/// Reads back the name of the cluster whose nodes are in kCloudVhost; empty: none. Errors: corrupt.
Result<std::string> cluster_of_cloud_vhost(std::string_view definitions);

}  // namespace educloud::cli
