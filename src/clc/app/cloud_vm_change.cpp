// Definitions that change: what runs goes on as it is, the next start takes what is new.
#include "clc/app/cloud_impl.hpp"
#include "clc/domain/vm_disks.hpp"

namespace educloud::clc {
namespace {

bool is_resized(const VmChange& change) {
  return change.vmtype || change.memory_mib || change.cpus;
}

bool is_placed_anew(const VmChange& change) {
  return change.cluster || change.node || change.version;
}

/// What stands against it, whatever it is changed to.
Result<> check_may_change(store::Sql& sql, const Instance& instance, const VmChange& change) {
  if (instance.deleting) return fail(ErrorCode::conflict, "instance " + instance.insid + " is being deleted");
  const bool ends = !outlives_its_task(instance.insid);
  if (change.autostart == true && ends) {
    return fail(ErrorCode::conflict, instance.insid + " ends with its run: it cannot start again",
                "autostart");
  }
  const bool edits = instance.insid.starts_with("TMP");
  if (is_placed_anew(change) && edits) {
    return fail(ErrorCode::conflict, instance.insid +
                                         " edits an image, whose version and node it keeps: "
                                         "cancel its task and begin anew to change them");
  }
  if ((is_placed_anew(change) || is_resized(change)) && ends && !edits) {
    return fail(ErrorCode::conflict,
                instance.insid + " ends with its run, so it has no next start: define another");
  }
  if (!is_resized(change)) return {};
  // Its node was chosen for the size that it has now, and its command is not written yet.
  const auto open = store::open_task_of_instance(sql, instance.insid);
  const auto state = open ? vm_state(*open) : "defined";
  if (state == "preparing" || state == "booting")
    return fail(ErrorCode::conflict,
                "instance " + instance.insid + " starts just now: try again once it runs");
  if (!open || open->state.phase != task::Phase::preparing) return {};
  // What its node had ready may still come, and would run with whatever size it has then.
  return fail(ErrorCode::conflict, "instance " + instance.insid +
                                       " did not start, and its node keeps what it was promised: start it "
                                       "again or cancel its task, then change it");
}

Result<> change_size(store::Sql& sql, Cloud::Impl& impl, const Principal& who, Instance& instance,
                     const VmChange& change) {
  if (!is_resized(change)) return {};
  const std::int64_t memory_mib = change.memory_mib.value_or(change.vmtype ? 0 : instance.memory_mib);
  const int cpus = change.cpus.value_or(change.vmtype ? 0 : instance.cpus);
  const std::string vmtype = change.vmtype.value_or(instance.vmtype);
  const bool is_new_type = vmtype != instance.vmtype;
  if (auto ok = impl.size(sql, instance, "", vmtype, memory_mib, cpus); !ok) return ok;
  if (!is_new_type) return {};
  const auto type = store::find_vmtype(sql, vmtype);
  const auto key = exceeding(instance.limits, type ? type->limits : msg::Limits{});
  if (key.empty() || may(who, Deed::exceed_limits, instance.owner)) return {};
  return fail(ErrorCode::permission_denied,
              "instance " + instance.insid + " has a limit of its own, " + std::string(key) +
                  ", that is more than type " + vmtype +
                  " allows: lower it first (educloud vm limit), or ask an administrator",
              "vmtype");
}

Result<> change_pins(store::Sql& sql, Cloud::Impl& impl, Instance& instance, const VmChange& change) {
  if (!change.cluster && !change.node) return {};
  instance.cluster_pin = change.cluster.value_or(instance.cluster_pin);
  instance.node_pin = change.node.value_or(instance.node_pin);
  if (auto ok = impl.check_pins(sql, instance.cluster_pin, instance.node_pin); !ok) return ok;
  const auto& disk = instance.disk_cluster;
  if (disk.empty()) return {};
  const auto node = store::find_node(sql, instance.node_pin);
  const bool away = node && node->cluster != disk;
  if (!away && (instance.cluster_pin.empty() || instance.cluster_pin == disk)) return {};
  return fail(
      ErrorCode::conflict,
      "instance " + instance.insid + " runs in cluster " + disk + " only: its database disk lies there",
      away ? "node" : "cluster");
}

}  // namespace

Result<VmView> Cloud::change_vm(const Principal& who, std::string_view insid, const VmChange& change) {
  auto& impl = *impl_;
  if (auto ok = check_folder_protocol(change.folder_protocol.value_or("")); !ok) return fail(ok.error());
  if (change.name) {
    if (auto ok = check_name(*change.name, "name"); !ok) return fail(ok.error());
  }
  return impl.store.write([&](store::Sql& sql) -> Result<VmView> {
    auto instance = impl.instance(sql, who, Deed::control_vm, insid);
    if (!instance) return fail(instance.error());
    if (auto ok = check_may_change(sql, *instance, change); !ok) return fail(ok.error());
    if (auto ok = change_size(sql, impl, who, *instance, change); !ok) return fail(ok.error());
    if (auto ok = change_pins(sql, impl, *instance, change); !ok) return fail(ok.error());
    if (change.version) {
      const auto image = store::find_image(sql, instance->imgid);
      if (!image) return fail(ErrorCode::not_found, "image " + instance->imgid + " is not there any more");
      auto ok = impl.check_version(sql, *image, *change.version, instance->insid.starts_with("VS"));
      if (!ok) return fail(ok.error());
      instance->version = *change.version;
    }
    instance->name = change.name.value_or(instance->name);
    instance->autostart = change.autostart.value_or(instance->autostart);
    instance->folder_protocol = change.folder_protocol.value_or(instance->folder_protocol);
    store::update_instance(sql, *instance);
    const auto& pins = *instance;
    impl.audit(sql, who, "vm.change", pins.insid,
               pins.name + ", " + pins.vmtype + ", " + std::to_string(pins.memory_mib) + " MiB, " +
                   std::to_string(pins.cpus) + " cpus, version " + std::to_string(pins.version) +
                   ", cluster " + pins.cluster_pin + ", node " + pins.node_pin);
    return impl.vm_view(sql, who, *instance);
  });
}

}  // namespace educloud::clc
