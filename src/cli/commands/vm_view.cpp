#include "cli/commands/vm_view.hpp"

#include "cli/commands/context.hpp"
#include "cli/commands/limits.hpp"
#include "cli/core/text.hpp"

namespace educloud::cli {
namespace {

/// "address:port" of the access's port; null if there is none.
nlohmann::json address_of(const nlohmann::json& access, const char* port_key) {
  const auto address = access.find("address");
  const auto port = access.find(port_key);
  if (address == access.end() || !address->is_string() || port == access.end() || !port->is_number_integer())
    return nullptr;
  if (port->get<int>() <= 0 || address->get_ref<const std::string&>().empty()) return nullptr;
  return address->get<std::string>() + ":" + std::to_string(port->get<int>());
}

}  // namespace

void add_addresses(nlohmann::json& vm) {
  if (!vm.is_object()) return;
  const auto at = vm.find("access");
  const nlohmann::json access = at != vm.end() && at->is_object() ? *at : nlohmann::json::object();
  const auto web = address_of(access, "web_port");
  vm["display_address"] = address_of(access, "display_port");
  vm["display_password"] = access.value("display_password", nlohmann::json());
  vm["web_url"] = web.is_null() ? web : nlohmann::json("http://" + web.get<std::string>() + "/");
}

std::string describe_vm(const nlohmann::json& vm) {
  std::vector<std::vector<std::string>> rows;
  for (const char* key :
       {"insid",        "name",     "state", "imgid",           "image_name",       "version",     "vmtype",
        "memory_mib",   "cpus",     "owner", "autostart",       "folder_protocol",  "cluster_pin", "node_pin",
        "disk_cluster", "hostname", "ip",    "display_address", "display_password", "web_url"}) {
    const std::string value = cell(vm, key);
    if (value != "-") rows.push_back({key, value});
  }
  const std::string limits = describe_limits(vm.value("limits", nlohmann::json()));
  if (!limits.empty()) rows.push_back({"limits", limits});
  if (const auto task = vm.find("task"); task != vm.end() && task->is_object()) {
    for (const char* key : {"tid", "node", "queue_reason", "prompt", "errormsg"}) {
      const std::string value = cell(*task, key);
      if (value != "-") rows.push_back({key, value});
    }
  }
  return render_table(rows);
}

}  // namespace educloud::cli
