#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "common/base/result.hpp"

namespace educloud::cli {

/// The broker's vhost where clc, walrus and one of the clusters are.
constexpr const char* kCloudVhost = "/";

/// One host of the cloud.
struct HostSpec {
  std::string name;
  std::string address;  ///< IPv4 that the others reach it by, and that its daemon listens on
  std::string cluster;  ///< of a node: name of its cluster controller
  std::string vhost;    ///< of a cluster and its nodes: where these talk to each other
  int port = 0;         ///< of its HTTP server
  bool on_this_machine = true;
};

/// What `educloud init` was told, as it stands on the command line.
struct InitArguments {
  std::string host;
  std::vector<std::string> clusters;   ///< NAME
  std::vector<std::string> nodes;      ///< NAME or NAME@CLUSTER
  std::vector<std::string> addresses;  ///< NAME=ADDRESS
  std::filesystem::path config_dir = "/etc/educloud";
  std::filesystem::path state_dir = "/var/lib/educloud";
  std::filesystem::path prefix = "/storage";
  std::filesystem::path out;  ///< empty: CONFIG_DIR/hosts
  std::filesystem::path admin_password_file;
  std::string broker_host;  ///< empty: the controller's address
  int broker_port = 5672;
  int clc_port = 8000;
  int walrus_port = 8001;
  int cc_port = 8002;
  int nc_port = 8003;
  std::string admin = "admin";
  std::string hypervisor = "libvirt";
  std::string accel = "auto";
  std::string libvirt_uri;
  /// The cluster whose nodes are in kCloudVhost, as an earlier run chose it (empty: none), so that it stays
  /// in whatever order clusters are named; unset: there was no earlier run.
  std::optional<std::string> cloud_cluster;
  int sftp_port = 8022;    ///< of the shared folders
  std::string files_user;  ///< whose these are; empty: see `find_files_user`
  std::string owner;       ///< system user that gets secrets and database; empty: see `find_owner`
  bool in_place = false;
  bool replace_config = false;
  bool definitions_only = false;
  bool reset_admin_password = false;
};

/// The same, checked and completed: every host has an address, a port and a place.
struct InitPlan {
  InitArguments arguments;
  HostSpec controller;  ///< clc and walrus
  std::vector<HostSpec> clusters;
  std::vector<HostSpec> nodes;

  /// True if one machine runs more than clc and walrus, so that its daemons need separate directories.
  bool shares_machine() const;
  /// True if the cc of `cluster` is to mount walrus' folders: one elsewhere that runs as root. The packages'
  /// runs as a user who cannot.
  bool mounts_folders(const HostSpec& cluster) const;
  /// kCloudVhost, then those of the other clusters.
  std::vector<std::string> vhosts() const;
  /// Logins of the broker, `operator` included, in a fixed order.
  std::vector<std::string> broker_users() const;
};

/// Pure. Errors: invalid_argument naming the option.
Result<InitPlan> make_plan(InitArguments arguments);

}  // namespace educloud::cli
