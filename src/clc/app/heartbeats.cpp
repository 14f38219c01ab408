#include "clc/app/heartbeats.hpp"

#include "common/base/ids.hpp"
#include "common/obs/log.hpp"
#include "common/obs/metrics.hpp"

namespace educloud::clc {
namespace {

void count(const char* what) {
  obs::metrics().count("educloud_clc_heartbeats_total", "Heartbeats received, by what became of them", 1,
                       {{"result", what}});
}

bus::Verdict refuse(const bus::Delivery& delivery, std::string_view why) {
  count("refused");
  obs::warn("heartbeat.refused", {{"sender", delivery.user_id}, {"key", delivery.routing_key}, {"why", why}});
  return bus::Verdict::reject;
}

}  // namespace

void Heartbeats::subscribe(bus::Bus& bus) {
  bus.subscribe(
      {"clc_heartbeat_queue", 64, [this](bus::Delivery delivery) { delivery.settle(take(delivery)); }});
}

bus::Verdict Heartbeats::take(const bus::Delivery& delivery) {
  if (delivery.routing_key.starts_with("nodestatus.")) return take_node(delivery);
  if (delivery.routing_key.starts_with("ccstatus.")) return take_cluster(delivery);
  return refuse(delivery, "neither nodestatus nor ccstatus");
}

bus::Verdict Heartbeats::take_inventory(const bus::Delivery& delivery) {
  auto part = msg::parse<msg::Inventory>(delivery.body);
  if (!part) return refuse(delivery, part.error().message);
  if (!HostName::parse(part->host) || !HostName::parse(part->ccid))
    return refuse(delivery, "host or ccid is no host name");
  if (delivery.user_id != "cc-" + part->ccid) return refuse(delivery, "not sent by the cc it names");
  count("inventory");
  on_inventory_(std::move(*part));
  return bus::Verdict::ack;
}

bus::Verdict Heartbeats::take_node(const bus::Delivery& delivery) {
  if (msg::is_type(delivery.body, "inventory")) return take_inventory(delivery);
  auto status = msg::parse<msg::NodeStatus>(delivery.body);
  if (!status) return refuse(delivery, status.error().message);
  if (!HostName::parse(status->host) || !HostName::parse(status->ccid))
    return refuse(delivery, "host or ccid is no host name");
  if (delivery.user_id != "cc-" + status->ccid) return refuse(delivery, "not sent by the cc it names");
  const std::scoped_lock guard(mutex_);
  const auto key = std::pair(status->ccid, status->host);
  if (!nodes_.contains(key) && nodes_.size() >= kHosts) return refuse(delivery, "too many hosts");
  auto& entry = nodes_[key];
  const std::int64_t now = clock_.boot_ms();
  decltype(entry.busy_at) busy_at;
  for (const auto& vm : status->vm_data) {
    const auto before = entry.busy_at.find(vm.insid);
    const bool idles = vm.state == "running" && vm.phy_cpu < kBusyCpu && before != entry.busy_at.end();
    busy_at[vm.insid] = idles ? before->second : now;
  }
  entry = {std::move(*status), now, std::move(busy_at)};
  count("taken");
  return bus::Verdict::ack;
}

bus::Verdict Heartbeats::take_cluster(const bus::Delivery& delivery) {
  auto status = msg::parse<msg::CcStatus>(delivery.body);
  if (!status) return refuse(delivery, status.error().message);
  if (!HostName::parse(status->host)) return refuse(delivery, "host is no host name");
  if (delivery.user_id != "cc-" + status->host) return refuse(delivery, "not sent by the cc it names");
  const std::scoped_lock guard(mutex_);
  if (!clusters_.contains(status->host) && clusters_.size() >= kHosts)
    return refuse(delivery, "too many hosts");
  const std::int64_t now = clock_.boot_ms();
  auto& entry = clusters_[status->host];
  if (entry.since_boot_ms == 0 || now - entry.at_boot_ms > kGapMs) entry.since_boot_ms = now;
  entry.at_boot_ms = now;
  entry.status = std::move(*status);
  count("taken");
  return bus::Verdict::ack;
}

std::optional<Heartbeats::NodeBeat> Heartbeats::node(const std::string& host,
                                                     const std::string& cluster) const {
  const std::scoped_lock guard(mutex_);
  const auto at = nodes_.find({cluster, host});
  if (at == nodes_.end()) return std::nullopt;
  return NodeBeat{at->second.status, cluster, age(at->second.at_boot_ms)};
}

bool Heartbeats::is_heard(const std::string& host, const std::string& cluster,
                          std::int64_t max_age_ms) const {
  const std::scoped_lock guard(mutex_);
  const auto at = nodes_.find({cluster, host});
  return at != nodes_.end() && age(at->second.at_boot_ms) <= max_age_ms;
}

std::int64_t Heartbeats::idle_ms(const std::string& host, const std::string& cluster,
                                 std::string_view insid) const {
  const std::scoped_lock guard(mutex_);
  const auto at = nodes_.find({cluster, host});
  if (at == nodes_.end()) return 0;
  const auto vm = at->second.busy_at.find(insid);
  return vm == at->second.busy_at.end() ? 0 : at->second.at_boot_ms - vm->second;
}

std::int64_t Heartbeats::silence_ms(const std::string& host, const std::string& cluster) const {
  const std::scoped_lock guard(mutex_);
  const auto at = nodes_.find({cluster, host});
  return age(at == nodes_.end() ? since_boot_ms_ : at->second.at_boot_ms);
}

Heartbeats::Guest Heartbeats::guest(const std::string& host, const std::string& cluster,
                                    std::string_view insid) const {
  const std::scoped_lock guard(mutex_);
  const auto at = nodes_.find({cluster, host});
  if (at == nodes_.end()) return {};
  const auto& status = at->second.status;
  Guest out{status.net_data.ip0, "", ""};
  for (const auto& vm : status.vm_data) {
    if (vm.insid != insid) continue;
    out.hostname = vm.hostname;
    out.ip = vm.ip;
  }
  return out;
}

std::vector<Heartbeats::NodeBeat> Heartbeats::nodes() const {
  const std::scoped_lock guard(mutex_);
  std::vector<NodeBeat> out;
  for (const auto& [key, entry] : nodes_) out.push_back({entry.status, key.first, age(entry.at_boot_ms)});
  return out;
}

std::vector<Heartbeats::Boot> Heartbeats::boots() const {
  const std::scoped_lock guard(mutex_);
  std::vector<Boot> out;
  for (const auto& [key, entry] : nodes_) {
    const auto at = entry.status.service_data.booted_at;
    if (at > 0) out.push_back({key.second, key.first, at});
  }
  return out;
}

std::optional<Heartbeats::ClusterBeat> Heartbeats::cluster(const std::string& host) const {
  const std::scoped_lock guard(mutex_);
  const auto at = clusters_.find(host);
  if (at == clusters_.end()) return std::nullopt;
  return ClusterBeat{at->second.status, age(at->second.at_boot_ms)};
}

std::int64_t Heartbeats::cluster_heard_for_ms(const std::string& host) const {
  const std::scoped_lock guard(mutex_);
  const auto at = clusters_.find(host);
  if (at == clusters_.end() || age(at->second.at_boot_ms) > kGapMs) return 0;
  return age(at->second.since_boot_ms);
}

std::vector<NodeSnapshot> Heartbeats::snapshots(const std::vector<Node>& nodes, const std::string& imgid,
                                                int version, std::int64_t max_age_ms) const {
  const std::scoped_lock guard(mutex_);
  std::vector<NodeSnapshot> out;
  for (const auto& node : nodes) {
    NodeSnapshot one;
    one.host = node.host;
    one.cluster = node.cluster;
    one.state = node.state;
    one.lost = node.lost_at > 0;
    const auto cc = clusters_.find(node.cluster);
    one.cluster_alive = cc != clusters_.end() && age(cc->second.at_boot_ms) <= max_age_ms;
    const auto beat = nodes_.find({node.cluster, node.host});
    if (beat != nodes_.end()) {
      const auto& status = beat->second.status;
      const auto& hardware = status.hardware_data;
      one.age_ms = age(beat->second.at_boot_ms);
      one.cpus = hardware.cpus;
      one.cpu_usage = hardware.cpu_usage;
      one.mem_mib = hardware.mem;
      one.mem_usage_mib = hardware.mem_usage;
      one.disk_mib = hardware.disk;
      one.disk_usage_mib = hardware.disk_usage;
      for (const auto& image : status.images) {
        one.has_image = one.has_image || (image.imgid == imgid && image.version == version);
      }
      for (const auto& vm : status.vm_data) {
        one.resident_mib[vm.insid] = vm.phy_mem;
        one.sizes[vm.insid] = {vm.mem, vm.vcpu};
      }
    }
    out.push_back(std::move(one));
  }
  return out;
}

}  // namespace educloud::clc
