#include "nc/app/heartbeat.hpp"

#include "common/base/ids.hpp"
#include "common/base/limits.hpp"
#include "common/daemon/daemon.hpp"
#include "common/obs/log.hpp"
#include "common/obs/metrics.hpp"
#include "common/sys/pause.hpp"

namespace educloud::nc {
namespace {

constexpr std::size_t kReportedVms = 200;
constexpr std::size_t kReportedWarnings = 20;
constexpr std::chrono::seconds kExpiration{30};  ///< a heartbeat older than that says nothing

/// Copies of servers' disks that an operator has to decide about (docs/operations.md).
void add_lost_copies(const Layout& layout, std::vector<std::string>& warnings) {
  std::error_code error;
  for (std::filesystem::directory_iterator it(layout.lost(), error), end; !error && it != end;
       it.increment(error)) {
    if (warnings.size() >= kReportedWarnings) return;
    warnings.push_back(it->path().string() +
                       " holds what a server wrote here before it began elsewhere without it: keep or remove "
                       "it, see \"A copy that stayed behind\" in operations.md");
  }
}

}  // namespace

Heartbeat::Heartbeat(const Config& config, Parts parts, int data_port)
    : config_(config),
      parts_(parts),
      data_port_(data_port),
      started_at_(parts.clock.wall_ms()),
      host_(config.common.prefix, config.common.advertise),
      guests_(parts.hypervisor) {}

std::vector<msg::VmData> Heartbeat::sample_vms() {
  std::vector<msg::VmData> all;
  auto vms = parts_.hypervisor.list();
  vm_warning_ = vms ? std::string{} : vms.error().message;
  if (!vms) return all;
  const std::int64_t now = parts_.clock.boot_ms();
  std::map<std::string, CpuSample> samples;
  for (const auto& vm : *vms) {
    if (all.size() == kReportedVms) break;
    msg::VmData data;
    data.insid = vm.insid.str();
    data.uuid = vm.uuid;
    data.mem = vm.memory_mib;
    data.vcpu = vm.cpus;
    data.state = to_string(vm.state);
    data.phy_mem = vm.resident_mib;
    const auto facts = guests_.facts(vm.insid);
    data.hostname = facts.hostname;
    data.ip = facts.ip;
    const auto last = cpu_.find(vm.uuid);
    if (last != cpu_.end() && now > last->second.boot_ms && vm.cpu_time_ns >= last->second.cpu_time_ns) {
      const double used_ms = static_cast<double>(vm.cpu_time_ns - last->second.cpu_time_ns) / 1e6;
      data.phy_cpu = used_ms * 100.0 / static_cast<double>(now - last->second.boot_ms);
    }
    samples[vm.uuid] = {vm.cpu_time_ns, now};
    all.push_back(std::move(data));
  }
  cpu_ = std::move(samples);
  return all;
}

msg::NodeStatus Heartbeat::sample() {
  msg::NodeStatus status;
  status.host = config_.common.host;
  status.ts = parts_.clock.wall_ms();
  status.service_data.version = daemon::version();
  status.service_data.hypervisor = parts_.hypervisor.kind();
  status.service_data.started_at = started_at_;
  status.service_data.booted_at = parts_.booted_at;
  status.service_data.data_port = data_port_;
  status.service_data.warnings = parts_.hypervisor.warnings();
  auto& warnings = status.service_data.warnings;
  if (auto hardware = host_.hardware()) {
    status.hardware_data = *hardware;
  } else {
    warnings.push_back(hardware.error().message);
  }
  if (auto network = host_.network()) {
    status.net_data = *network;
  } else {
    warnings.push_back(network.error().message);
  }
  status.nid = hostinfo::status_id("nc", status.net_data);
  status.vm_data = sample_vms();
  if (!vm_warning_.empty()) warnings.push_back(vm_warning_);
  for (auto& warning : parts_.folders.warnings()) warnings.push_back(std::move(warning));
  add_lost_copies(Layout(config_.common.prefix), warnings);
  if (warnings.size() > kReportedWarnings) warnings.resize(kReportedWarnings);
  status.images = parts_.images.cached();
  return status;
}

void Heartbeat::write_metrics(const msg::NodeStatus& status) {
  std::map<std::string, double> states{
      {"running", 0}, {"paused", 0}, {"shutdown", 0}, {"shutoff", 0}, {"crashed", 0}};
  for (const auto& vm : status.vm_data) ++states[vm.state];
  for (const auto& [state, count] : states) {
    obs::metrics().gauge("educloud_nc_vms", "VMs by state, as the hypervisor says", count,
                         {{"state", state}});
  }
  obs::metrics().gauge("educloud_nc_cache_bytes", "Bytes of image versions kept on this node",
                       static_cast<double>(parts_.images.cached_bytes()));
  obs::metrics().gauge("educloud_nc_warnings", "Things an operator should look at",
                       static_cast<double>(status.service_data.warnings.size()));
}

void Heartbeat::beat() {
  auto status = sample();
  write_metrics(status);
  parts_.node.reconcile();
  const Layout layout(config_.common.prefix);
  for (const auto& vm : status.vm_data) {
    auto insid = InstanceId::parse(vm.insid);
    if (!insid) continue;
    if (auto ok = cut_console(layout.console(*insid), std::uint64_t(config_.console_limit_kib) * 1024); !ok) {
      obs::warn("console.not_cut", {{"insid", vm.insid}, {"reason", ok.error().message}});
    }
  }
  std::string body = msg::serialize(status);
  while (body.size() > limits::kMessageBytes && !status.images.empty()) {
    status.images.resize(status.images.size() / 2);
    body = msg::serialize(status);
  }
  bus::Outgoing message{config_.exchange, config_.node_key(), std::move(body), new_command_id().str(),
                        kExpiration};
  message.persistent = false;
  // One that is lost is followed by the next; nobody waits for it.
  auto queued = parts_.bus.publish(std::move(message), [](bus::Outcome) {});
  if (!queued) obs::debug("heartbeat.not_queued", {{"reason", queued.error().message}});
}

void Heartbeat::start() {
  guests_.start();
  thread_ = std::jthread([this](std::stop_token stop) {
    while (!stop.stop_requested()) {
      try {
        beat();
      } catch (const std::exception& e) {
        obs::error("heartbeat.exception", {{"what", e.what()}});
      }
      (void)sys::pause(limits::kHeartbeat, stop);
    }
  });
}

void Heartbeat::stop() {
  guests_.stop();
  if (!thread_.joinable()) return;
  thread_.request_stop();
  thread_.join();
}

}  // namespace educloud::nc
