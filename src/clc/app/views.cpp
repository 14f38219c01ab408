#include "clc/app/views.hpp"

#include "clc/domain/task_rules.hpp"
#include "common/msg/codec.hpp"

namespace educloud::clc {

using nlohmann::json;

namespace {

/// VD, TVD, VS or TMP: what stands before the 8 digits.
std::string kind_of_instance(const std::string& insid) {
  return insid.size() > 8 ? insid.substr(0, insid.size() - 8) : insid;
}

}  // namespace

json to_json(const Session& session) {
  return {{"token", session.token},
          {"expires", session.expires_at},
          {"account", session.who.account},
          {"admin", session.who.admin}};
}

json to_json(const ImageView& view) {
  const auto& image = view.image;
  return {{"imgid", image.imgid},
          {"name", image.name},
          {"owner", image.owner},
          {"ostype", image.ostype},
          {"usage", image.usage},
          {"database_imgid", image.database_imgid},
          {"database_state", view.database_state},
          {"description", image.description},
          {"version", image.current_version},
          {"state", view.state},
          {"tid", view.tid},
          {"size_bytes", view.size_bytes},
          {"virtual_size_bytes", view.virtual_size_bytes},
          {"created_at", image.created_at}};
}

json to_json(const UploadTarget& upload) {
  return {{"url", upload.url}, {"query", upload.query}, {"cmdid", upload.cmdid}, {"format", upload.format}};
}

json to_json(const ImageCreated& created) {
  return {{"imgid", created.imgid}, {"tid", created.tid}, {"upload", to_json(created.upload)}};
}

json to_json(const VersionView& view) {
  const auto& version = view.version;
  return {{"imgid", version.imgid},
          {"version", version.version},
          {"digest", version.digest},
          {"size_bytes", version.size_bytes},
          {"virtual_size_bytes", version.virtual_size_bytes},
          {"format", version.format},
          {"parent", version.parent},
          {"database_version", version.database_version},
          {"current", view.current},
          {"pruning", version.pruning},
          {"used_by", view.used_by},
          {"created_at", version.created_at}};
}

json to_json(const TaskView& view) {
  const auto& task = view.task;
  return {{"tid", task.tid},
          {"kind", to_string(task.kind)},
          {"owner", task.owner},
          {"phase", to_string(task.state.phase)},
          {"state", to_string(task.state.state)},
          {"progress", task.progress},
          {"bytes_done", task.bytes_done},
          {"bytes_total", task.bytes_total},
          {"bytes_per_s", task.bytes_per_s},
          {"rate", task.bytes_per_s},  // its name before the nodes told it
          {"prompt", task.prompt},
          {"errormsg", task.errormsg},
          {"failed", task.failed ? 1 : 0},
          {"done", task.achieved ? 1 : 0},
          {"final", task.state.state == task::State::gone ? 1 : 0},
          {"src", task.src},
          {"dst", task.dst},
          {"insid", task.insid},
          {"image_name", view.image_name},
          {"instance_name", view.instance_name},
          {"cluster", task.cluster},
          {"node", task.node},
          {"source_version", task.source_version},
          {"target_version", task.target_version},
          {"lazy", task.lazy ? 1 : 0},
          {"on_conflict", task.replace ? "replace" : "fail"},
          {"placement", task.placement},
          {"stops_at", task.leaves_at},
          {"queue_place", view.queue_place},
          {"queue_length", view.queue_length},
          {"queue_reason", view.queue_reason},
          {"op", task.op},
          {"busy", task.op_open},
          {"attempt", task.attempt},
          {"created_at", task.created_at},
          {"updated_at", task.updated_at},
          {"ended_at", task.ended_at}};
}

json to_json(const VmView& view) {
  const auto& instance = view.instance;
  json out{{"insid", instance.insid},
           {"name", instance.name},
           {"kind", kind_of_instance(instance.insid)},
           {"owner", instance.owner},
           {"imgid", instance.imgid},
           {"image_name", view.image_name},
           {"version", instance.version},
           {"vmtype", instance.vmtype},
           {"memory_mib", instance.memory_mib},
           {"cpus", instance.cpus},
           {"cluster_pin", instance.cluster_pin},
           {"node_pin", instance.node_pin},
           {"disk_cluster", instance.disk_cluster},
           {"autostart", instance.autostart},
           {"folder_protocol", view.folder_protocol},
           {"state", view.state},
           {"task", nullptr},
           {"access", nullptr},
           {"limits", msg::encode(view.limits)},
           {"own_limits", msg::encode(instance.limits)},
           {"first_boot", nullptr},
           {"hostname", view.hostname},
           {"ip", view.ip},
           {"created_at", instance.created_at}};
  if (const auto& first = instance.first_boot; first != msg::FirstBoot{}) {
    out["first_boot"] = {{"hostname", first.hostname},
                         {"user", first.user},
                         {"ssh_key", first.ssh_key},
                         {"password", !first.password_hash.empty()}};
  }
  if (view.task) out["task"] = to_json(*view.task);
  if (view.access) {
    out["access"] = {{"address", view.access->address},
                     {"display_port", view.access->display_port},
                     {"web_port", view.access->web_port},
                     {"display_password", view.access->display_password}};
  }
  return out;
}

json to_json(const NodeView& node) {
  return {{"host", node.host},
          {"cluster", node.cluster},
          {"registered", node.registered},
          {"admin_state", to_string(node.state)},
          {"lost_at", node.lost_at},
          {"lease", node.lost_at > 0   ? "lost"
                    : node.alive       ? "held"
                    : node.age_ms >= 0 ? "suspect"
                                       : "none"},
          {"lease_epoch", node.lease_epoch},
          {"alive", node.alive},
          {"age_ms", node.age_ms},
          {"started_at", node.started_at},
          {"booted_at", node.booted_at},
          {"hypervisor", node.hypervisor},
          {"version", node.version},
          {"address", node.address},
          {"cpus", node.cpus},
          {"cpu_usage", node.cpu_usage},
          {"mem_mib", node.mem_mib},
          {"mem_usage_mib", node.mem_usage_mib},
          {"disk_mib", node.disk_mib},
          {"disk_usage_mib", node.disk_usage_mib},
          {"committed_mib", node.committed_mib},
          {"committed_cpus", node.committed_cpus},
          {"warnings", node.warnings},
          {"vms", node.vms},
          {"images", node.images}};
}

json to_json(const ClusterView& cluster) {
  return {{"host", cluster.host},       {"database_mode", cluster.database_mode},
          {"alive", cluster.alive},     {"age_ms", cluster.age_ms},
          {"version", cluster.version}, {"address", cluster.address},
          {"nodes", cluster.nodes},     {"nodes_alive", cluster.nodes_alive}};
}

json to_json(const StatusView& status) {
  auto clusters = json::array();
  for (const auto& one : status.clusters) clusters.push_back(to_json(one));
  return {{"version", status.version},
          {"started_at", status.started_at},
          {"broker_ready", status.broker_ready},
          {"images", status.images},
          {"instances", status.instances},
          {"open_tasks", status.open_tasks},
          {"failed_tasks", status.failed_tasks},
          {"running_vms", status.running_vms},
          {"nodes", status.nodes},
          {"nodes_alive", status.nodes_alive},
          {"outbox", status.outbox},
          {"dead_letters", status.dead_letters},
          {"backup_at", status.backup_at},
          {"clusters", std::move(clusters)},
          {"walrus_url", status.walrus_url}};
}

json to_json(const PushView& push) {
  auto items = json::array();
  for (const auto& one : push.items) {
    items.push_back({{"node", one.node}, {"result", one.result}, {"tid", one.tid}, {"reason", one.reason}});
  }
  return {{"imgid", push.imgid}, {"version", push.version}, {"items", std::move(items)}};
}

json to_json(const VersionUrl& url) {
  return {{"imgid", url.imgid},
          {"version", url.version},
          {"url", url.url},
          {"manifest_url", url.manifest_url},
          {"query", url.query},
          {"expires", url.expires},
          {"digest", url.digest},
          {"size_bytes", url.size_bytes},
          {"virtual_size_bytes", url.virtual_size_bytes}};
}

json to_json(const VmType& type) {
  return {{"name", type.name},
          {"memory_mib", type.memory_mib},
          {"cpus", type.cpus},
          {"limits", msg::encode(type.limits)}};
}

json to_json(const OsType& type) {
  return {{"name", type.name},
          {"disk_type", type.disk_type},
          {"nic_type", type.nic_type},
          {"sound_type", type.sound_type},
          {"folder_protocol", type.folder_protocol}};
}

json to_json(const SnapshotView& view) {
  const auto& one = view.snapshot;
  return {{"snapid", one.snapid}, {"insid", one.insid},        {"name", one.name},
          {"state", view.state},  {"memory", one.with_memory}, {"node", one.node},
          {"error", one.error},   {"tid", view.tid},           {"created_at", one.created_at}};
}

}  // namespace educloud::clc
