#include "sim/world/nc_host.hpp"

#include <fstream>

#include "common/base/ids.hpp"
#include "common/sys/file.hpp"
#include "nc/app/boot_marker.hpp"

namespace educloud::sim {
namespace {

constexpr std::int64_t kHeartbeatMs = 5000;
constexpr std::int64_t kUpkeepMs = 1000;
constexpr std::int64_t kInboxTickMs = 1000;  ///< the daemon's is 200 ms; nothing depends on it
constexpr std::int64_t kHostMib = 512;       ///< what the host takes for itself
constexpr std::uint64_t kDiskBytes = 200ull << 30;
constexpr std::chrono::seconds kBeatExpires{30};

}  // namespace

Result<> SimHypervisor::define_and_start(const nc::VmSpec& spec) {
  nc_.crash_point();
  if (rng_.chance(trouble_.start)) return fail(ErrorCode::unavailable, "QEMU ended at once");
  auto done = nc::FakeHypervisor::define_and_start(spec);
  if (done) on_start();
  nc_.crash_point();
  return done;
}
Result<> SimHypervisor::shutdown(const InstanceId& insid) {
  nc_.crash_point();
  auto done = nc::FakeHypervisor::shutdown(insid);
  nc_.crash_point();
  return done;
}
Result<> SimHypervisor::destroy(const InstanceId& insid) {
  nc_.crash_point();
  auto done = nc::FakeHypervisor::destroy(insid);
  nc_.crash_point();
  return done;
}

/// Knows which versions are here; overlays are empty files.
class NcHost::Images : public nc::ImageTools {
 public:
  explicit Images(NcHost& host) : host_(host) {}

  Result<> fetch(const nc::FillRequest& request, const nc::OnCopied& progress, std::stop_token) override {
    const std::pair key(request.imgid, request.version);
    if (host_.cached_.contains(key)) return {};
    if (auto ok = reach(host_.trouble.fetch); !ok) return ok;
    const auto& known = host_.walrus_.images();
    const auto image = known.find(request.imgid);
    if (image == known.end() || !image->second.versions.contains(request.version))
      return fail(ErrorCode::not_found, "walrus has no such version");
    if (image->second.versions.at(request.version).digest != request.digest.hex())
      return fail(ErrorCode::corrupt, "the manifest is another one");
    progress(request.data_bytes / 2, request.data_bytes);
    host_.crash_point();
    host_.cached_.insert(key);
    progress(request.data_bytes, request.data_bytes);
    return {};
  }
  Result<std::shared_ptr<nc::NodeCache::Reader>> open_lazily(const nc::FillRequest&,
                                                             std::stop_token) override {
    return fail(ErrorCode::unavailable, "lazy disks are not simulated");
  }
  Result<nc::BaseDisk> base(const std::string& imgid, int version) override {
    if (!host_.cached_.contains({imgid, version})) return fail(ErrorCode::not_found, "not here");
    return nc::BaseDisk{{{host_.prefix() / "images" / imgid / std::to_string(version), "raw", false}},
                        1 << 30};
  }
  Result<> make_overlay(const nc::DiskLayer&, std::uint64_t, const std::filesystem::path& overlay) override {
    host_.crash_point();
    std::error_code ignored;
    if (std::filesystem::exists(overlay, ignored)) return fail(ErrorCode::conflict, "the overlay exists");
    std::ofstream made(overlay);
    if (!made) return fail(ErrorCode::internal, "cannot make " + overlay.string());
    host_.crash_point();
    return {};
  }
  Result<nc::SubmitReport> submit(const nc::SubmitJob& job, const nc::OnCopied& progress,
                                  std::stop_token) override {
    if (auto ok = reach(host_.trouble.submit); !ok) return fail(ok.error());
    progress(1 << 19, 1 << 20);
    host_.crash_point();
    auto receipt = host_.walrus_.publish({job.target_imgid, job.target_version, job.cmdid, job.if_current,
                                          transfer::make_parent(job.parent_imgid, job.parent_version)});
    host_.crash_point();
    if (!receipt) return fail(receipt.error());
    nc::SubmitReport report;
    report.receipt = std::move(*receipt);
    report.candidate_bytes = report.changed_bytes = report.sent_bytes = 1 << 20;
    return report;
  }
  Result<std::uint64_t> free_disk_bytes() override { return kDiskBytes / 2; }
  void set_in_use(const nc::Versions& versions) override { in_use_ = versions; }
  void make_room(std::uint64_t) override {
    std::erase_if(host_.cached_, [this](const auto& one) { return !in_use_.contains(one); });
  }
  std::vector<msg::CachedImage> cached() override {
    std::vector<msg::CachedImage> all;
    for (const auto& [imgid, version] : host_.cached_) all.push_back({imgid, version, ""});
    return all;
  }
  std::uint64_t cached_bytes() override { return host_.cached_.size() << 20; }

 private:
  Result<> reach(double trouble) {
    host_.crash_point();
    if (!host_.walrus_.is_up() || host_.rng_.chance(trouble))
      return fail(ErrorCode::unavailable, "walrus does not answer");
    return {};
  }
  NcHost& host_;
  nc::Versions in_use_;
};

NcHost::NcHost(Surroundings surroundings, Broker& broker, WalrusHost& walrus, std::string name,
               std::uint64_t seed, Options options)
    : Host(std::move(surroundings), std::move(name), seed),
      broker_(broker),
      walrus_(walrus),
      options_(std::move(options)),
      hypervisor_(*this, rng_, trouble) {}
NcHost::~NcHost() {
  wreck();
}

// As Daemon::start.
Result<> NcHost::boot() {
  if (auto ok = sys::make_directories(prefix(), 0700); !ok) return ok;
  auto booted = nc::note_boot(prefix(), "boot-" + std::to_string(boots_), clock_.wall_ms());
  if (!booted) return fail(booted.error());
  booted_at_ = *booted;
  bus_ = broker_.connect("nc-" + name_, *this);
  inbox::Options options;
  options.file = prefix() / "inbox.sqlite";
  options.exchange = "cc_status";
  options.routing_key = "taskstatus.nc-" + name_;
  options.nid = name_;
  options.booted_at = booted_at_;
  auto opened = inbox::Inbox::open(std::move(options), *bus_, clock_);
  if (!opened) return fail(opened.error());
  inbox_ = std::move(*opened);
  images_ = std::make_unique<Images>(*this);
  nc::OperationOptions operations;
  operations.layout = nc::Layout(prefix());
  operations.limits.max_memory_mib = options_.memory_mib - kHostMib;
  operations.limits.max_cpus = options_.cpus;
  operations.limits.advertise = "10.0.0.3";
  operations.state_dir = prefix();
  operations.may_start = [this](std::stop_token stop) { return lease_->may_start(std::move(stop)); };
  nc::LeaseKeeper::Options lease;
  lease.host = name_;
  lease.state_dir = prefix();
  lease.patience = std::chrono::milliseconds{0};
  lease.on_new_epoch = [this] { inventory_->soon(); };
  lease_ = std::make_unique<nc::LeaseKeeper>(std::move(lease), hypervisor_, clock_);
  node_ = std::make_unique<nc::Node>(std::move(operations), name_, *inbox_, hypervisor_, *images_, clock_);
  node_->recover();
  auto listening = hypervisor_.start([this](const nc::VmEvent& event) {
    node_->on_vm_event(event);
    work_soon();
  });
  if (!listening) return listening;
  subscribe();
  node_->redo_unfinished();
  for (std::size_t i = 0; i <= inbox_->unfinished().size(); ++i) work_soon();
  open_upkeep();
  bus_->start([this] {
    inbox_->resend();
    inventory_->soon();
  });
  every(kInboxTickMs, [this] { inbox_->tick(); });
  every(kHeartbeatMs, [this] { beat(); });
  every(kUpkeepMs, [this] {
    lease_->tick();
    inventory_->tick();
    sweeper_->tick();
  });
  return {};
}

void NcHost::subscribe() {
  bus_->subscribe({"nc_cmd_queue." + name_, 4, [this](bus::Delivery delivery) {
                     node_->handle(std::move(delivery));
                     work_soon();
                   }});
  bus_->subscribe(
      {"nc_lease_queue." + name_, 1, [this](const bus::Delivery& delivery) { lease_->take(delivery); }});
}

void NcHost::open_upkeep() {
  nc::InventoryReporter::Options options;
  options.layout = nc::Layout(prefix());
  options.host = name_;
  options.routing_key = "nodestatus.nc-" + name_;
  inventory_ = std::make_unique<nc::InventoryReporter>(std::move(options), *inbox_, hypervisor_, *bus_,
                                                       clock_, [this] { return lease_->epoch(); });
  sweeper_ = std::make_unique<nc::OrphanSweeper>(nc::Layout(prefix()), *inbox_, hypervisor_, *node_, clock_);
}

void NcHost::wreck() {
  hypervisor_.stop();
  sweeper_.reset();
  inventory_.reset();
  node_.reset();
  lease_.reset();
  images_.reset();
  inbox_.reset();
  bus_.reset();
}

void NcHost::work_soon() {
  world_.timeline.after(life(), rng_.between(1, trouble.slowest_job_ms), [this] { run([this] { work(); }); });
}

/// One of its workers looks for something to do.
void NcHost::work() {
  std::vector lanes{nc::Lane::machines, nc::Lane::copies, nc::Lane::background};
  std::swap(lanes[0], lanes[rng_.below(lanes.size())]);
  for (const auto lane : lanes) {
    if (node_->run_one(lane)) return work_soon();
  }
}

// As Heartbeat, with made-up figures.
msg::NodeStatus NcHost::status() {
  msg::NodeStatus status;
  status.host = name_;
  status.nid = "nc#52:54:00:00:00:03#status";
  status.ts = clock_.wall_ms();
  status.service_data.hypervisor = "fake";
  status.service_data.data_port = 8003;
  status.service_data.booted_at = booted_at_;
  status.net_data.ip0 = "10.0.0.3";
  std::int64_t used = kHostMib;
  if (auto vms = hypervisor_.list()) {
    for (const auto& vm : *vms) {
      msg::VmData data;
      data.insid = vm.insid.str();
      data.uuid = vm.uuid;
      data.mem = data.phy_mem = vm.memory_mib;
      data.vcpu = vm.cpus;
      data.state = to_string(vm.state);
      used += vm.memory_mib;
      status.vm_data.push_back(std::move(data));
    }
  }
  status.hardware_data = {options_.cpus, 5.0, options_.memory_mib, std::min(used, options_.memory_mib),
                          200 * 1024,    1024};
  status.images = images_->cached();
  return status;
}

void NcHost::beat() {
  const auto now = status();
  node_->reconcile();
  work_soon();
  bus::Outgoing message{"cc_status", "nodestatus.nc-" + name_, msg::serialize(now), new_command_id().str(),
                        kBeatExpires};
  (void)bus_->publish(std::move(message), [](bus::Outcome) {});
}

std::vector<NcHost::Vm> NcHost::vms() {
  std::vector<Vm> all;
  auto known = hypervisor_.list();
  if (!known) return all;
  for (const auto& vm : *known) {
    const auto spec = hypervisor_.spec(vm.insid);
    all.push_back({vm.insid.str(), vm.tid, vm.memory_mib, vm.cpus, spec ? spec->display_port : 0,
                   spec ? spec->web_port : 0});
  }
  return all;
}

void NcHost::end_guest(const std::string& insid, bool crashed) {
  const auto id = InstanceId::parse(insid);
  if (!id) return;
  const auto kind = crashed ? nc::VmEvent::Kind::crashed : nc::VmEvent::Kind::stopped;
  if (!is_up() || is_paused()) return hypervisor_.end(*id, kind, true);
  run([&] { hypervisor_.end(*id, kind, rng_.chance(0.3)); });
}

void NcHost::lose_power() {
  crash();
  ++boots_;
  for (const auto& vm : vms()) end_guest(vm.insid, true);
}

std::vector<std::string> NcHost::folders() const {
  std::vector<std::string> all;
  std::error_code ignored;
  for (const auto& one : std::filesystem::directory_iterator(nc::Layout(prefix()).instances(), ignored))
    all.push_back(one.path().filename().string());
  std::sort(all.begin(), all.end());
  return all;
}

std::size_t NcHost::unfinished() const {
  return inbox_ ? inbox_->unfinished().size() : 0;
}

}  // namespace educloud::sim
