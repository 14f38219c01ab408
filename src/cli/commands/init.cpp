#include "cli/init/init.hpp"

#include <CLI/CLI.hpp>

#include "cli/commands/context.hpp"
#include "cli/init/secrets.hpp"
#include "common/sys/file.hpp"

namespace educloud::cli {
namespace {

nlohmann::json to_json(const InitReport& report, const std::filesystem::path& password_file) {
  const auto texts = [](const std::vector<std::filesystem::path>& paths) {
    auto out = nlohmann::json::array();
    for (const auto& path : paths) out.push_back(path.string());
    return out;
  };
  nlohmann::json out = {{"definitions", report.definitions.string()}, {"database", report.database.string()}};
  out["written"] = texts(report.written);
  out["kept"] = texts(report.kept);
  out["bundles"] = texts(report.bundles);
  out["admin_created"] = report.admin_created;
  out["database_in_use"] = report.database_in_use;
  out["admin_password_file"] = password_file.string();
  return out;
}

std::string to_text(const InitReport& report, const InitArguments& arguments) {
  std::string out;
  for (const auto& path : report.written) out += "wrote " + path.string() + "\n";
  for (const auto& path : report.kept)
    out += "kept  " + path.string() + " (differs; --replace-config overwrites)\n";
  if (report.database_in_use)
    out += "kept  " + report.database.string() + " (clc runs, and no host changed)\n";
  if (report.admin_created) out += "made the administrator " + arguments.admin + "\n";
  out += "broker: rabbitmqctl import_definitions < " + report.definitions.string() + "\n";
  for (const auto& path : report.bundles) {
    out += "host " + path.filename().string() + ": copy " + path.string() + "/* to its " +
           arguments.config_dir.string() + ", keep the modes (cp -a, rsync -a)\n";
  }
  return out;
}

/// The admin's password when no file was given: asked twice on a terminal, where an empty answer means "make
/// one"; without a terminal made and written to a file, so that it stands in no log.
Result<std::string> new_admin_password(const Context& context, const InitArguments& arguments,
                                       std::filesystem::path& written_to) {
  const bool interactive =
      context.console.stdout_is_terminal() && context.console.stderr_is_terminal() && !context.console.json;
  if (interactive) {
    auto first = Console::ask_password("Password for " + arguments.admin + " (empty: make one): ");
    if (!first) return first;
    if (first->empty()) {
      std::string made = make_password();
      context.console.note("Password of " + arguments.admin + ", shown only now: " + made);
      return made;
    }
    auto second = Console::ask_password("The same again: ");
    if (!second) return second;
    if (*first != *second)
      return fail(ErrorCode::invalid_argument, "the two passwords differ: run init again");
    return first;
  }
  std::string made = make_password();
  written_to = arguments.config_dir / "secrets" / "admin.password";
  if (auto ok = sys::write_file_atomically(written_to, made + "\n", 0600); !ok) return fail(ok.error());
  context.console.note("the password of " + arguments.admin + " is in " + written_to.string());
  return made;
}

}  // namespace

void add_init_command(CLI::App& app, Context& context) {
  auto* init = app.add_subcommand(
      "init", "Make a new cloud: secrets, broker definitions, config files, database, first admin");
  auto arguments = std::make_shared<InitArguments>();
  auto& a = *arguments;
  init->add_option("--host", a.host, "Name of the host that runs clc and walrus")->required();
  init->add_option("--cluster", a.clusters, "Name of a cluster controller's host (several)")
      ->required()
      ->take_all();
  init->add_option("--node", a.nodes, "NAME or NAME@CLUSTER of a node (several)")->take_all();
  init->add_option("--address", a.addresses, "NAME=IPv4 of a host; default: 127.0.0.1, or the controller's")
      ->take_all();
  init->add_option("--config-dir", a.config_dir, "Config and secrets")->capture_default_str();
  init->add_option("--state-dir", a.state_dir, "Databases")->capture_default_str();
  init->add_option("--prefix", a.prefix, "Images and VMs")->capture_default_str();
  init->add_option("--out", a.out, "Bundles for other hosts (default: CONFIG_DIR/hosts)");
  init->add_option("--broker-host", a.broker_host, "RabbitMQ (default: the controller's address)");
  init->add_option("--broker-port", a.broker_port, "Its AMQP port")->capture_default_str();
  init->add_option("--clc-port", a.clc_port, "Port of clc's API")->capture_default_str();
  init->add_option("--walrus-port", a.walrus_port, "Port of walrus")->capture_default_str();
  init->add_option("--cc-port", a.cc_port, "Port of the cluster controllers")->capture_default_str();
  init->add_option("--nc-port", a.nc_port, "Port of the nodes")->capture_default_str();
  init->add_option("--admin", a.admin, "Login of the first administrator")->capture_default_str();
  init->add_option("--admin-password-file", a.admin_password_file, "File (0600) with the password");
  init->add_flag("--reset-admin-password", a.reset_admin_password,
                 "Give an administrator who exists the new password");
  init->add_option("--hypervisor", a.hypervisor, "Of the nodes: libvirt or fake")
      ->check(CLI::IsMember({"libvirt", "fake"}))
      ->capture_default_str();
  init->add_option("--accel", a.accel, "Of the nodes: auto, kvm or tcg")
      ->check(CLI::IsMember({"auto", "kvm", "tcg"}))
      ->capture_default_str();
  init->add_option("--libvirt-uri", a.libvirt_uri, "Of the nodes");
  init->add_option("--owner", a.owner,
                   "User who gets secrets and database (default: educloud, if root sets /etc/educloud up)");
  init->add_flag("--in-place", a.in_place,
                 "Every daemon runs on this machine, whatever the addresses say: no bundles");
  init->add_flag("--replace-config", a.replace_config, "Overwrite config files that were changed");
  init->add_flag("--definitions-only", a.definitions_only, "Only secrets and broker definitions");
  on_command(*init, context, [&context, arguments]() -> Result<> {
    std::filesystem::path password_file = arguments->admin_password_file;
    const auto ask = [&] { return new_admin_password(context, *arguments, password_file); };
    auto report = run_init(*arguments, ask);
    if (!report) return fail(report.error());
    context.console.result(to_json(*report, password_file), to_text(*report, *arguments));
    return {};
  });
}

}  // namespace educloud::cli
