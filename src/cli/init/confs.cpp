#include "cli/init/confs.hpp"

namespace educloud::cli {
namespace {

namespace fs = std::filesystem;

/// Lines of a TOML file.
class Toml {
 public:
  Toml& text(const std::string& key, const std::string& value) { return raw(key, "\"" + value + "\""); }
  Toml& number(const std::string& key, int value) { return raw(key, std::to_string(value)); }
  Toml& flag(const std::string& key, bool value) { return raw(key, value ? "true" : "false"); }
  Toml& comment(const std::string& line) { return put("# " + line); }
  Toml& table(const std::string& name) { return put("\n[" + name + "]"); }
  const std::string& str() const { return text_; }

 private:
  Toml& raw(const std::string& key, const std::string& value) { return put(key + " = " + value); }
  Toml& put(const std::string& line) {
    text_ += line + "\n";
    return *this;
  }
  std::string text_;
};

/// The directories of one daemon.
struct Places {
  std::filesystem::path prefix, state_dir;
};

/// How many image stores stand on this address: two of them must not share a prefix.
bool shares_address(const InitPlan& plan, const std::string& address) {
  const auto same = [&](const HostSpec& host) { return host.address == address; };
  return (plan.controller.address == address) +
             std::count_if(plan.clusters.begin(), plan.clusters.end(), same) +
             std::count_if(plan.nodes.begin(), plan.nodes.end(), same) >
         1;
}

/// The directories that the packages make: one per role, and below it one per host where several share it.
Places packaged_places(const InitPlan& plan, const std::string& role, const HostSpec& host) {
  const auto& all = role == "nc" ? plan.nodes : plan.clusters;
  const auto same = [&](const HostSpec& one) { return one.address == host.address; };
  const bool is_shared = (role == "cc" || role == "nc") && std::count_if(all.begin(), all.end(), same) > 1;
  const fs::path tag = is_shared ? fs::path(role) / host.name : fs::path(role);
  return {plan.arguments.prefix / tag, plan.arguments.state_dir / tag};
}

Places places(const InitPlan& plan, const std::string& role, const HostSpec& host) {
  const auto& arguments = plan.arguments;
  if (!arguments.owner.empty()) return packaged_places(plan, role, host);
  const bool is_controller = role == "clc" || role == "walrus";
  const bool shared =
      is_controller ? plan.shares_machine() : host.on_this_machine || shares_address(plan, host.address);
  if (!shared) return {arguments.prefix, arguments.state_dir / role};
  const std::string tag = is_controller ? role : role + "-" + host.name;
  return {arguments.prefix / tag, arguments.state_dir / tag};
}

std::string url(const HostSpec& host, int port) {
  return "http://" + host.address + ":" + std::to_string(port);
}

/// The keys that all four have. `user`: broker login.
void add_top(Toml& toml, const InitPlan& plan, const std::string& role, const HostSpec& host, int port) {
  const auto where = places(plan, role, host);
  toml.comment("educloud-" + role + " of host " + host.name + ", written by `educloud init`.");
  toml.comment("Every key with its meaning: the commented example " + role + ".conf of the package.");
  toml.text("host", host.name).text("prefix", where.prefix).text("state_dir", where.state_dir);
  toml.text("listen", host.address).number("port", port).text("advertise", host.address);
}

void add_broker(Toml& toml, const InitPlan& plan, const std::string& user,
                const std::string& vhost = kCloudVhost) {
  const auto secrets = plan.arguments.config_dir / "secrets";
  toml.table("broker").text("host", plan.arguments.broker_host).number("port", plan.arguments.broker_port);
  if (vhost != kCloudVhost) toml.text("vhost", vhost);
  toml.text("user", user).text("password_file", secrets / Secrets::password_file(user));
}

std::string clc_conf(const InitPlan& plan) {
  Toml toml;
  add_top(toml, plan, "clc", plan.controller, plan.arguments.clc_port);
  toml.text("walrus_url", url(plan.controller, plan.arguments.walrus_port));
  toml.text("data_key_file", plan.arguments.config_dir / "secrets" / "data_key");
  add_broker(toml, plan, "clc");
  return toml.str();
}

std::string walrus_conf(const InitPlan& plan) {
  Toml toml;
  add_top(toml, plan, "walrus", plan.controller, plan.arguments.walrus_port);
  toml.text("data_key_file", plan.arguments.config_dir / "secrets" / "data_key");
  add_broker(toml, plan, "walrus");
  return toml.str();
}

std::string cc_conf(const InitPlan& plan, const HostSpec& host) {
  Toml toml;
  add_top(toml, plan, "cc", host, host.port);
  toml.text("walrus_url", url(plan.controller, plan.arguments.walrus_port));
  toml.text("data_key_file", plan.arguments.config_dir / "secrets" / "data_key");
  add_broker(toml, plan, "cc-" + host.name);
  if (host.address != plan.controller.address) {
    toml.table("folders").number("port", relay_port(host));
    toml.text("walrus_host", plan.controller.address).number("walrus_port", plan.arguments.sftp_port);
    if (plan.mounts_folders(host)) {
      const auto& directory = plan.arguments.config_dir;
      toml.flag("mount", true).text("user", plan.arguments.files_user);
      toml.text("key_file", directory / "secrets" / Secrets::cc_folder_key_file(host.name));
      toml.text("known_hosts_file", directory / "sftp" / "known_hosts");
    }
  }
  if (host.vhost != kCloudVhost) toml.table("cluster_broker").text("vhost", host.vhost);
  return toml.str();
}

/// A node on walrus' own host uses the folders where they are; one of a cluster elsewhere goes through its
/// cc.
void add_folders(Toml& toml, const InitPlan& plan, const HostSpec& node, const HostSpec& cluster) {
  const auto& arguments = plan.arguments;
  toml.table("folders");
  if (node.address == plan.controller.address) {
    toml.text("local", places(plan, "walrus", plan.controller).prefix / "space");
    return;
  }
  const bool is_direct = cluster.address == plan.controller.address;
  toml.text("host", cluster.address).number("port", is_direct ? arguments.sftp_port : relay_port(cluster));
  toml.text("user", arguments.files_user);
  toml.text("key_file", arguments.config_dir / "secrets" / Secrets::folder_key_file(node.name));
  toml.text("known_hosts_file", arguments.config_dir / "sftp" / "known_hosts");
}

std::string nc_conf(const InitPlan& plan, const HostSpec& host) {
  const auto cluster = std::find_if(plan.clusters.begin(), plan.clusters.end(),
                                    [&](const HostSpec& one) { return one.name == host.cluster; });
  const auto& arguments = plan.arguments;
  Toml toml;
  add_top(toml, plan, "nc", host, host.port);
  toml.text("cc_url", url(*cluster, cluster->port));
  toml.text("node_key_file", arguments.config_dir / "secrets" / Secrets::node_key_file(host.name));
  toml.text("hypervisor", arguments.hypervisor).text("accel", arguments.accel);
  if (!arguments.libvirt_uri.empty()) toml.text("libvirt_uri", arguments.libvirt_uri);
  add_broker(toml, plan, "nc-" + host.name, host.vhost);
  add_folders(toml, plan, host, *cluster);
  return toml.str();
}

/// cc.conf, or cc-NAME.conf where one directory would hold several.
std::filesystem::path conf_path(const InitPlan& plan, const std::string& role, const HostSpec& host,
                                const std::vector<HostSpec>& all) {
  const auto& arguments = plan.arguments;
  if (!host.on_this_machine) return arguments.out / host.name / (role + ".conf");
  const auto here =
      std::count_if(all.begin(), all.end(), [](const HostSpec& one) { return one.on_this_machine; });
  return arguments.config_dir / (here > 1 ? role + "-" + host.name + ".conf" : role + ".conf");
}

}  // namespace

std::filesystem::path walrus_prefix(const InitPlan& plan) {
  return places(plan, "walrus", plan.controller).prefix;
}

std::filesystem::path clc_state_dir(const InitPlan& plan) {
  return places(plan, "clc", plan.controller).state_dir;
}

std::vector<PlannedFile> plan_files(const InitPlan& plan, const Secrets& secrets) {
  std::vector<PlannedFile> files;
  const auto& arguments = plan.arguments;
  const auto add_secret = [&](const HostSpec& host, const std::string& name, const std::string& value) {
    if (!host.on_this_machine)
      files.push_back({arguments.out / host.name / "secrets" / name, value + "\n", 0600});
  };
  files.push_back({arguments.config_dir / "clc.conf", clc_conf(plan), 0644, true});
  files.push_back({arguments.config_dir / "walrus.conf", walrus_conf(plan), 0644, true});
  for (const auto& host : plan.clusters) {
    // A bundle's config is regenerated: it is a copy, the host's own file is where an administrator edits.
    files.push_back(
        {conf_path(plan, "cc", host, plan.clusters), cc_conf(plan, host), 0644, host.on_this_machine});
    const std::string user = "cc-" + host.name;
    add_secret(host, Secrets::password_file(user), secrets.passwords.at(user));
    add_secret(host, "data_key", secrets.data_key);
    if (plan.mounts_folders(host))
      add_secret(host, Secrets::cc_folder_key_file(host.name), secrets.cc_folder_keys.at(host.name));
  }
  for (const auto& host : plan.nodes) {
    files.push_back(
        {conf_path(plan, "nc", host, plan.nodes), nc_conf(plan, host), 0644, host.on_this_machine});
    const std::string user = "nc-" + host.name;
    add_secret(host, Secrets::password_file(user), secrets.passwords.at(user));
    add_secret(host, Secrets::node_key_file(host.name), secrets.node_keys.at(host.name));
    add_secret(host, Secrets::folder_key_file(host.name), secrets.folder_keys.at(host.name));
  }
  return files;
}

}  // namespace educloud::cli
