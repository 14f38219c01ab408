#include "sim/nodes/light_node.hpp"

#include <cstdio>

#include "common/base/limits.hpp"
#include "common/bus/rabbit_bus.hpp"
#include "common/daemon/daemon.hpp"
#include "common/obs/log.hpp"
#include "common/sys/file.hpp"

namespace educloud::sim {
namespace {

constexpr std::uint16_t kPrefetch = 4;           // as educloud-nc
constexpr std::size_t kReportedVms = 200;        // as educloud-nc
constexpr std::chrono::seconds kExpiration{30};  // of a heartbeat
constexpr std::int64_t kHostMib = 1024;          // the host's own

/// Tells `trace` of what goes out.
class TracedBus : public bus::Bus {
 public:
  TracedBus(std::unique_ptr<bus::Bus> inner, StatusTrace& trace) : inner_(std::move(inner)), trace_(trace) {}
  Result<> publish(bus::Outgoing message, bus::OnOutcome on_outcome) override {
    trace_.write(message);
    return inner_->publish(std::move(message), std::move(on_outcome));
  }
  void subscribe(bus::Subscription subscription) override { inner_->subscribe(std::move(subscription)); }
  void start(std::function<void()> on_ready) override { inner_->start(std::move(on_ready)); }
  void stop() override { inner_->stop(); }
  bool is_ready() const override { return inner_->is_ready(); }

 private:
  const std::unique_ptr<bus::Bus> inner_;
  StatusTrace& trace_;
};

nc::LeaseKeeper::Options lease_options(const nc::Config& config) {
  nc::LeaseKeeper::Options out;
  out.host = config.common.host;
  out.state_dir = config.common.state_dir;
  return out;
}

std::string mac_of(std::size_t number) {
  char text[24];
  std::snprintf(text, sizeof text, "02:ec:50:00:%02x:%02x", static_cast<unsigned>(number >> 8 & 255),
                static_cast<unsigned>(number & 255));
  return text;
}

}  // namespace

Result<std::unique_ptr<StatusTrace>> StatusTrace::open(const std::filesystem::path& file) {
  std::FILE* opened = std::fopen(file.c_str(), "we");
  if (opened == nullptr) return fail(errno_error("open " + file.string(), errno));
  return std::unique_ptr<StatusTrace>(new StatusTrace(opened));
}

StatusTrace::~StatusTrace() {
  std::fclose(file_);
}

void StatusTrace::write(const bus::Outgoing& message) {
  if (!message.routing_key.starts_with("taskstatus.")) return;
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto status = msg::parse<msg::TaskStatus>(message.body);
  if (!status) return;
  const auto micros = std::chrono::duration_cast<std::chrono::microseconds>(now).count();
  const std::lock_guard lock(mutex_);
  std::fprintf(file_, "%lld %s %s\n", static_cast<long long>(micros), status->tid.c_str(),
               status->event.c_str());
  std::fflush(file_);
}

LightNode::LightNode(Options options, const Clock& clock)
    : options_(std::move(options)),
      clock_(clock),
      started_at_(clock.wall_ms()),
      images_(options_.config.common.prefix),
      lease_(lease_options(options_.config), hypervisor_, clock) {}

Result<std::unique_ptr<LightNode>> LightNode::open(Options options, const Clock& clock) {
  std::unique_ptr<LightNode> node(new LightNode(std::move(options), clock));
  if (auto ok = node->open_parts(); !ok) return fail(ok.error(), node->options_.config.common.host);
  return node;
}

Result<> LightNode::open_parts() {
  const auto& config = options_.config;
  const auto& common = config.common;
  if (auto ok = sys::make_directories(common.state_dir, 0700); !ok) return ok;
  if (auto ok = sys::make_directories(common.prefix); !ok) return ok;
  bus_ = bus::make_rabbit_bus(daemon::rabbit_options(common, "nc"));
  if (options_.trace != nullptr) bus_ = std::make_unique<TracedBus>(std::move(bus_), *options_.trace);
  inbox::Options inbox;
  inbox.file = common.state_dir / "inbox.sqlite";
  inbox.exchange = config.exchange;
  inbox.routing_key = config.task_key();
  inbox.nid = common.host;
  auto opened = inbox::Inbox::open(std::move(inbox), *bus_, clock_);
  if (!opened) return fail(opened.error());
  inbox_ = std::move(*opened);
  nc::OperationOptions operations;
  operations.layout = nc::Layout(common.prefix);
  operations.limits.max_memory_mib = options_.hardware.memory_mib;
  operations.limits.max_cpus = options_.hardware.cpus;
  operations.limits.advertise = common.advertise;
  operations.state_dir = common.state_dir;
  operations.may_start = [this](std::stop_token stop) { return lease_.may_start(std::move(stop)); };
  node_ =
      std::make_unique<nc::Node>(std::move(operations), common.host, *inbox_, hypervisor_, images_, clock_);
  node_->recover();
  nc::InventoryReporter::Options inventory;
  inventory.layout = nc::Layout(common.prefix);
  inventory.host = common.host;
  inventory.exchange = config.exchange;
  inventory.routing_key = config.node_key();
  inventory_ = std::make_unique<nc::InventoryReporter>(std::move(inventory), *inbox_, hypervisor_, *bus_,
                                                       clock_, [this] { return lease_.epoch(); });
  return {};
}

void LightNode::tick() {
  inbox_->tick();
  lease_.tick();
  inventory_->tick();
}

void LightNode::subscribe() {
  bus_->subscribe({options_.config.queue(), kPrefetch, [this](bus::Delivery delivery) {
                     {
                       const std::lock_guard lock(mutex_);
                       arrived_.push_back(std::move(delivery));
                     }
                     options_.on_work();
                   }});
  bus_->subscribe(
      {options_.config.lease_queue(), 1, [this](const bus::Delivery& delivery) { lease_.take(delivery); }});
}

Result<> LightNode::start() {
  auto started = hypervisor_.start([this](const nc::VmEvent& event) {
    node_->on_vm_event(event);
    options_.on_work();
  });
  if (!started) return started;
  subscribe();
  node_->redo_unfinished();
  bus_->start([this] {
    inbox_->resend();
    inventory_->soon();
  });
  options_.on_work();
  return {};
}

void LightNode::stop() {
  if (node_) node_->stop();
  hypervisor_.stop();
  if (bus_) bus_->stop();
}

std::optional<bus::Delivery> LightNode::take() {
  const std::lock_guard lock(mutex_);
  if (arrived_.empty()) return std::nullopt;
  auto first = std::move(arrived_.front());
  arrived_.pop_front();
  return first;
}

void LightNode::work() {
  while (auto delivery = take()) node_->handle(std::move(*delivery));
  for (const auto lane : {nc::Lane::machines, nc::Lane::copies, nc::Lane::background}) {
    while (node_->run_one(lane)) continue;
  }
}

msg::NodeStatus LightNode::status() {
  const auto& common = options_.config.common;
  const auto& hardware = options_.hardware;
  msg::NodeStatus status;
  status.host = common.host;
  status.ts = clock_.wall_ms();
  status.service_data.version = daemon::version();
  status.service_data.hypervisor = hypervisor_.kind();
  status.service_data.started_at = started_at_;
  status.service_data.data_port = common.port;
  status.service_data.warnings = hypervisor_.warnings();
  status.hardware_data = {hardware.cpus, 1.0, hardware.memory_mib, kHostMib, hardware.disk_mib, kHostMib};
  status.net_data.ip0 = status.net_data.exip = common.advertise;
  status.net_data.mac0 = mac_of(options_.number);
  status.nid = "nc#" + status.net_data.mac0 + "#status";
  if (auto vms = hypervisor_.list()) {
    for (const auto& vm : *vms) {
      if (status.vm_data.size() == kReportedVms) break;
      msg::VmData data;
      data.insid = vm.insid.str();
      data.uuid = vm.uuid;
      data.mem = vm.memory_mib;
      data.vcpu = vm.cpus;
      data.state = to_string(vm.state);
      status.vm_data.push_back(std::move(data));
    }
  }
  status.images = images_.cached();
  return status;
}

void LightNode::beat() {
  node_->reconcile();
  options_.on_work();
  bus::Outgoing message{options_.config.exchange, options_.config.node_key(), msg::serialize(status()),
                        new_command_id().str(), kExpiration};
  if (message.body.size() > limits::kMessageBytes) {
    return obs::warn("heartbeat.too_large", {{"host", options_.config.common.host}});
  }
  message.persistent = false;
  auto queued = bus_->publish(std::move(message), [](bus::Outcome) {});
  if (!queued) obs::debug("heartbeat.not_queued", {{"reason", queued.error().message}});
}

}  // namespace educloud::sim
