#include "cli/init/options.hpp"

#include <arpa/inet.h>

#include <map>
#include <set>

#include "common/base/ids.hpp"

namespace educloud::cli {
namespace {

constexpr std::size_t kMostHosts = 1000;

bool is_ipv4(const std::string& text) {
  in_addr address{};
  return ::inet_pton(AF_INET, text.c_str(), &address) == 1;
}

Result<std::map<std::string, std::string>> parse_addresses(const std::vector<std::string>& pairs) {
  std::map<std::string, std::string> out;
  for (const auto& pair : pairs) {
    const auto equals = pair.find('=');
    const std::string name = pair.substr(0, equals);
    const std::string address = equals == std::string::npos ? "" : pair.substr(equals + 1);
    if (!HostName::parse(name) || !is_ipv4(address)) {
      return fail(ErrorCode::invalid_argument,
                  "--address " + pair + ": give NAME=IPv4, for instance cc1=10.0.0.2", "address");
    }
    out[name] = address;
  }
  return out;
}

Result<> check_ports(const InitArguments& arguments) {
  const std::pair<const char*, int> ports[] = {{"broker-port", arguments.broker_port},
                                               {"clc-port", arguments.clc_port},
                                               {"walrus-port", arguments.walrus_port},
                                               {"cc-port", arguments.cc_port},
                                               {"nc-port", arguments.nc_port}};
  for (const auto& [name, port] : ports) {
    if (port >= 1 && port <= 65535) continue;
    return fail(ErrorCode::invalid_argument,
                "--" + std::string(name) + " " + std::to_string(port) + ": a port is 1 to 65535", name);
  }
  return {};
}

Result<> check_directories(const InitArguments& arguments) {
  const std::pair<const char*, const std::filesystem::path*> paths[] = {{"config-dir", &arguments.config_dir},
                                                                        {"state-dir", &arguments.state_dir},
                                                                        {"prefix", &arguments.prefix},
                                                                        {"out", &arguments.out}};
  for (const auto& [name, path] : paths) {
    const std::string text = path->string();
    // The paths stand between quotes in TOML files.
    const bool is_plain = text.find_first_of("\"\\\n\r\t") == std::string::npos;
    if (path->is_absolute() && is_plain) continue;
    return fail(
        ErrorCode::invalid_argument,
        "--" + std::string(name) + " " + text + ": give an absolute path without quotes or backslashes",
        name);
  }
  return {};
}

/// Gives hosts that listen on one address different ports, counted from the first.
void spread_ports(std::vector<HostSpec>& hosts, int first_port) {
  std::map<std::string, int> used;
  for (auto& host : hosts) host.port = first_port + used[host.address]++;
}

/// One cluster stays in the cloud's vhost, so that a cloud with one needs no other. The others get vhosts of
/// their own: in a shared one each cc would take what the others' nodes say.
void choose_vhosts(InitPlan& plan) {
  const std::string in_cloud = plan.arguments.cloud_cluster.value_or(plan.clusters.front().name);
  for (auto& cluster : plan.clusters) cluster.vhost = cluster.name == in_cloud ? kCloudVhost : cluster.name;
  for (auto& node : plan.nodes) {
    const auto is_its = [&](const HostSpec& cluster) { return cluster.name == node.cluster; };
    node.vhost = std::find_if(plan.clusters.begin(), plan.clusters.end(), is_its)->vhost;
  }
}

}  // namespace

bool InitPlan::shares_machine() const {
  const auto is_here = [](const HostSpec& host) { return host.on_this_machine; };
  return std::any_of(clusters.begin(), clusters.end(), is_here) ||
         std::any_of(nodes.begin(), nodes.end(), is_here);
}

bool InitPlan::mounts_folders(const HostSpec& cluster) const {
  return cluster.address != controller.address && arguments.files_user == "root";
}

std::vector<std::string> InitPlan::vhosts() const {
  std::vector<std::string> out = {kCloudVhost};
  for (const auto& cluster : clusters) {
    if (cluster.vhost != kCloudVhost) out.push_back(cluster.vhost);
  }
  return out;
}

std::vector<std::string> InitPlan::broker_users() const {
  std::vector<std::string> users = {"clc", "walrus", "operator"};
  for (const auto& cluster : clusters) users.push_back("cc-" + cluster.name);
  for (const auto& node : nodes) users.push_back("nc-" + node.name);
  return users;
}

Result<InitPlan> make_plan(InitArguments arguments) {
  if (arguments.out.empty()) arguments.out = arguments.config_dir / "hosts";
  if (auto ok = check_ports(arguments); !ok) return fail(ok.error());
  if (auto ok = check_directories(arguments); !ok) return fail(ok.error());
  auto addresses = parse_addresses(arguments.addresses);
  if (!addresses) return fail(addresses.error());
  if (arguments.clusters.empty())
    return fail(ErrorCode::invalid_argument, "give at least one --cluster", "cluster");
  if (arguments.clusters.size() + arguments.nodes.size() > kMostHosts) {
    return fail(ErrorCode::invalid_argument, "more than " + std::to_string(kMostHosts) + " hosts", "node");
  }

  InitPlan plan;
  std::set<std::string> names;
  const auto make_host = [&](const std::string& name, const char* key) -> Result<HostSpec> {
    auto checked = HostName::parse(name);
    if (!checked)
      return fail(ErrorCode::invalid_argument, "--" + std::string(key) + ": " + checked.error().message, key);
    HostSpec host;
    host.name = name;
    const auto at = addresses->find(name);
    host.address = at != addresses->end()            ? at->second
                   : plan.controller.address.empty() ? "127.0.0.1"
                                                     : plan.controller.address;
    return host;
  };
  auto controller = make_host(arguments.host, "host");
  if (!controller) return fail(controller.error());
  plan.controller = *controller;

  for (const auto& name : arguments.clusters) {
    auto host = make_host(name, "cluster");
    if (!host) return fail(host.error());
    if (!names.insert("cc-" + name).second)
      return fail(ErrorCode::invalid_argument, "--cluster " + name + " is given twice", "cluster");
    host->on_this_machine = arguments.in_place || host->address == plan.controller.address;
    plan.clusters.push_back(*host);
  }
  for (const auto& text : arguments.nodes) {
    const auto at = text.find('@');
    auto host = make_host(text.substr(0, at), "node");
    if (!host) return fail(host.error());
    host->cluster = at == std::string::npos ? plan.clusters.front().name : text.substr(at + 1);
    if (!names.contains("cc-" + host->cluster)) {
      return fail(ErrorCode::invalid_argument, "--node " + text + ": there is no --cluster " + host->cluster,
                  "node");
    }
    if (!names.insert("nc-" + host->name).second)
      return fail(ErrorCode::invalid_argument, "--node " + host->name + " is given twice", "node");
    host->on_this_machine = arguments.in_place || host->address == plan.controller.address;
    plan.nodes.push_back(*host);
  }
  for (const auto& [name, address] : *addresses) {
    if (name == plan.controller.name || names.contains("cc-" + name) || names.contains("nc-" + name))
      continue;
    return fail(ErrorCode::invalid_argument,
                "--address " + name + "=" + address + ": no such --host, --cluster or --node", "address");
  }
  spread_ports(plan.clusters, arguments.cc_port);
  spread_ports(plan.nodes, arguments.nc_port);
  if (arguments.broker_host.empty()) arguments.broker_host = plan.controller.address;
  plan.arguments = std::move(arguments);
  choose_vhosts(plan);
  return plan;
}

}  // namespace educloud::cli
