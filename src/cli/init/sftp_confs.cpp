// The sshd of the shared folders.
#include "cli/init/confs.hpp"
#include "cli/init/ssh_keys.hpp"

namespace educloud::cli {
namespace {

namespace fs = std::filesystem;

/// Names the server whatever address leads to it, so that a cc may pass the connection on.
constexpr const char* kHostAlias = "educloud-walrus";

std::string sshd_config(const InitPlan& plan) {
  const auto& arguments = plan.arguments;
  std::string text =
      "# The SFTP server of the shared folders, written by `educloud init`; educloud-sftp.service runs it.\n"
      "# Who logs in sees space/ of walrus and nothing else, and can do nothing but transfer files.\n";
  const auto add = [&](const std::string& key, const std::string& value) {
    text += key + " " + value + "\n";
  };
  add("Port", std::to_string(arguments.sftp_port));
  add("ListenAddress", plan.controller.address);
  add("HostKey", (arguments.config_dir / "secrets" / "sftp_host_key").string());
  add("AuthorizedKeysFile", (arguments.config_dir / "sftp" / "authorized_keys").string());
  add("AllowUsers", arguments.files_user);
  add("PermitRootLogin", arguments.files_user == "root" ? "prohibit-password" : "no");
  add("ChrootDirectory", (walrus_prefix(plan) / "space").string());
  return text +
         "StrictModes yes\nAuthenticationMethods publickey\nPasswordAuthentication no\n"
         "KbdInteractiveAuthentication no\nUsePAM no\n"
         "Subsystem sftp internal-sftp\nForceCommand internal-sftp\nDisableForwarding yes\nPermitTTY no\n"
         "PermitUserRC no\nPermitTunnel no\nX11Forwarding no\n"
         // Three connections per node, and all come back at once after a restart.
         "MaxStartups 200:30:1000\nClientAliveInterval 15\nClientAliveCountMax 3\nPidFile none\n";
}

}  // namespace

int relay_port(const HostSpec& cluster) {
  constexpr int kDistance = 20, kHighest = 65535;
  return cluster.port + (cluster.port + kDistance > kHighest ? -kDistance : kDistance);
}

Result<std::vector<PlannedFile>> plan_sftp_files(const InitPlan& plan, const Secrets& secrets) {
  const auto& arguments = plan.arguments;
  auto host_key = ssh_public_key(secrets.sftp_host_key);
  if (!host_key) return fail(host_key.error(), "sftp_host_key");
  const std::string known_hosts = std::string(kHostAlias) + " " + *host_key + "\n";
  std::string authorized;
  std::vector<PlannedFile> files;
  const auto add = [&](const HostSpec& host, const std::string& private_key) -> Result<> {
    auto key = ssh_public_key(private_key);
    if (!key) return fail(key.error(), "the key of " + host.name + " for the shared folders");
    authorized += "restrict " + *key + " " + host.name + "\n";
    const auto copy = arguments.out / host.name / "sftp" / "known_hosts";
    if (!host.on_this_machine) files.push_back({copy, known_hosts, 0644});
    return {};
  };
  for (const auto& node : plan.nodes) {
    if (auto ok = add(node, secrets.folder_keys.at(node.name)); !ok) return fail(ok.error());
  }
  for (const auto& cluster : plan.clusters) {
    if (!plan.mounts_folders(cluster)) continue;
    if (auto ok = add(cluster, secrets.cc_folder_keys.at(cluster.name)); !ok) return fail(ok.error());
  }
  const fs::path folder = arguments.config_dir / "sftp";
  files.push_back({folder / "known_hosts", known_hosts, 0644});
  files.push_back({folder / "authorized_keys", authorized, 0644});
  files.push_back({folder / "sshd_config", sshd_config(plan), 0644, true});
  return files;
}

}  // namespace educloud::cli
