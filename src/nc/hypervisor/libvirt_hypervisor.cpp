#include "nc/hypervisor/libvirt_hypervisor.hpp"

#include <condition_variable>

#include <libvirt/virterror.h>

#include "common/obs/log.hpp"
#include "nc/hypervisor/domain_xml.hpp"
#include "nc/hypervisor/kvm_probe.hpp"
#include "nc/hypervisor/libvirt_connection.hpp"
#include "nc/hypervisor/libvirt_domain.hpp"
#include "nc/hypervisor/libvirt_migration.hpp"
#include "nc/hypervisor/libvirt_network.hpp"
#include "nc/hypervisor/libvirt_secret.hpp"
#include "nc/hypervisor/libvirt_snapshots.hpp"

namespace educloud::nc {
namespace {

constexpr std::chrono::milliseconds kFirstBackOff{500};
constexpr std::chrono::milliseconds kLastBackOff{5000};
constexpr std::chrono::milliseconds kSecondLook{1000};
constexpr int kKeepAliveSeconds = 5;
constexpr unsigned kKeepAliveCount = 3;
constexpr std::chrono::seconds kButtonPatience{5};

class LibvirtHypervisor : public Hypervisor {
 public:
  explicit LibvirtHypervisor(LibvirtOptions options) : options_(std::move(options)) {}
  ~LibvirtHypervisor() override { stop(); }

  Result<> start(OnVmEvent on_event) override;
  void stop() override;
  std::string kind() const override;
  std::vector<std::string> warnings() const override;
  Result<> set_disk_secret(const InstanceId& insid, const std::string& secret) override {
    return on_host([&](virConnectPtr host) { return set_secret(host, insid, secret); });
  }
  Result<> drop_disk_secret(const InstanceId& insid) override {
    return on_host([&](virConnectPtr host) { return drop_secret(host, insid); });
  }
  Result<unsigned> guest_uid() override { return on_host(qemu_uid); }
  Result<> define_and_start(const VmSpec& spec) override;
  Result<> shutdown(const InstanceId& insid) override;
  Result<> destroy(const InstanceId& insid) override;
  Result<> pause(const InstanceId& insid) override { return with(insid, pause_domain); }
  Result<> resume(const InstanceId& insid) override { return with(insid, resume_domain); }
  Result<> reboot(const InstanceId& insid) override { return with(insid, reboot_domain); }
  Result<> reset(const InstanceId& insid) override { return with(insid, reset_domain); }
  Result<> set_limits(const InstanceId& insid, const msg::Limits& limits) override {
    return with(insid, [&](virDomainPtr domain) { return limit_domain(domain, limits); });
  }
  Result<> divert_network(const InstanceId& insid, const NetSockets& sockets) override {
    return with(insid, [&](virDomainPtr domain) { return divert_domain(domain, sockets); });
  }
  Result<> undivert_network(const InstanceId& insid) override { return with(insid, undivert_domain); }
  Result<GuestFacts> guest_facts(const InstanceId& insid) override { return with(insid, domain_facts); }
  Result<std::vector<DiskSnapshot>> snapshots(const InstanceId& insid,
                                              const std::filesystem::path& disk) override {
    return with(insid, [&](virDomainPtr domain) { return domain_snapshots(domain, disk); });
  }
  Result<> take_snapshot(const InstanceId& insid, const std::filesystem::path& disk, const std::string& name,
                         bool with_memory, std::stop_token stop) override {
    return with(insid, [&](virDomainPtr domain) {
      return take_domain_snapshot(domain, disk, name, with_memory, stop);
    });
  }
  Result<> load_snapshot(const InstanceId& insid, const std::filesystem::path& disk, const std::string& name,
                         std::stop_token stop) override {
    return with(insid, [&](virDomainPtr domain) { return load_domain_snapshot(domain, disk, name, stop); });
  }
  Result<> drop_snapshot(const InstanceId& insid, const std::filesystem::path& disk,
                         const std::string& name) override {
    return with(insid, [&](virDomainPtr domain) { return drop_domain_snapshot(domain, disk, name); });
  }
  Result<std::string> recipe(const InstanceId& insid) override { return with(insid, domain_recipe); }
  Result<> start_again(const std::string& recipe) override {
    return on_host([&](virConnectPtr host) -> Result<> {
      const DomainRef started(virDomainCreateXML(host, recipe.c_str(), 0));
      return started ? Result<>{} : fail(libvirt_error("start the VM again"));
    });
  }
  Result<> receive(const VmSpec& spec, const MovePlaces& places) override;
  Result<bool> has_arrived(const InstanceId& insid) override { return with(insid, domain_has_arrived); }
  Result<> take_over(const InstanceId& insid) override { return with(insid, take_over_domain); }
  Result<> send_away(const InstanceId& insid, const MovePlaces& places, const OnMoved& moved,
                     std::stop_token stop) override {
    return with(insid, [&](virDomainPtr domain) { return send_domain_away(domain, places, moved, stop); });
  }
  Result<> keep_here(const InstanceId& insid) override { return with(insid, keep_domain_here); }
  Result<std::vector<VmInfo>> list() override;
  Result<VmState> state(const InstanceId& insid) override { return with(insid, domain_state); }
  Result<std::string> screenshot(const InstanceId& insid) override;

 private:
  Result<> choose_accelerator();
  Result<> open();
  void close_connection();
  void keep_connected(std::stop_token stop);
  void emit(const VmEvent& event);
  HostTraits host() const {
    std::lock_guard lock(mutex_);
    return {kvm_, has_cgroup2()};
  }
  Result<ConnectRef> connection() const;
  /// The domain, with the connection it needs to stay alive.
  Result<std::pair<ConnectRef, DomainRef>> domain(const InstanceId& insid) const;
  template <typename Act>
  auto on_host(Act act) const -> decltype(act(virConnectPtr{})) {
    auto open = connection();
    if (!open) return fail(open.error());
    return act(open->get());
  }
  /// `act` on the domain, which lives as long as its connection does.
  template <typename Act>
  auto with(const InstanceId& insid, Act act) const -> decltype(act(virDomainPtr{})) {
    auto found = domain(insid);
    if (!found) return fail(found.error());
    return act(found->second.get());
  }
  static void on_lifecycle(virConnectPtr, virDomainPtr domain, int event, int detail, void* self);
  static void on_reboot(virConnectPtr, virDomainPtr domain, void* self);
  static void on_close(virConnectPtr connection, int reason, void* self);

  const LibvirtOptions options_;
  const std::filesystem::path pids_ = pid_folder(options_.uri);
  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  OnVmEvent on_event_;       // under mutex_
  ConnectRef connection_;    // under mutex_; null: not connected
  bool lost_ = false;        // under mutex_: on_close was called for connection_
  bool kvm_ = false;         // under mutex_
  bool confined_ = false;    // under mutex_
  bool chosen_ = false;      // under mutex_
  std::string kvm_warning_;  // under mutex_
  std::string last_error_;   // under mutex_
  int lifecycle_id_ = -1;    // keeper thread only
  int reboot_id_ = -1;       // keeper thread only
  std::jthread keeper_;
};

Result<> LibvirtHypervisor::choose_accelerator() {
  bool kvm = false;
  std::string warning;
  if (options_.accel != "tcg") {
    const auto probed = probe_kvm();
    kvm = probed.has_value();
    if (!probed) warning = "KVM is not used, guests run slowly under TCG: " + probed.error().message;
    if (!probed && options_.accel == "kvm")
      return fail(probed.error(), "accel = \"kvm\" but KVM does not work");
  }
  if (!warning.empty()) obs::warn("hypervisor.no_kvm", {{"reason", warning}});
  obs::info("hypervisor.accelerator", {{"accelerator", kvm ? "kvm" : "tcg"}});
  std::lock_guard lock(mutex_);
  kvm_ = kvm;
  chosen_ = true;
  kvm_warning_ = warning;
  return {};
}

Result<> LibvirtHypervisor::start(OnVmEvent on_event) {
  if (auto ok = choose_accelerator(); !ok) return ok;
  ensure_libvirt_events();
  std::unique_lock lock(mutex_);
  on_event_ = std::move(on_event);
  keeper_ = std::jthread([this](std::stop_token stop) { keep_connected(stop); });
  changed_.wait_for(lock, options_.first_connect, [&] { return connection_ != nullptr; });
  if (!connection_) obs::error("hypervisor.unreachable", {{"uri", options_.uri}, {"reason", last_error_}});
  return {};
}

void LibvirtHypervisor::stop() {
  {
    std::lock_guard lock(mutex_);
    on_event_ = nullptr;
  }
  if (!keeper_.joinable()) return;
  keeper_.request_stop();
  keeper_.join();
  close_connection();
}

Result<> LibvirtHypervisor::open() {
  ConnectRef opened(virConnectOpen(options_.uri.c_str()), [](virConnectPtr p) {
    if (p != nullptr) virConnectClose(p);
  });
  if (!opened) return fail(libvirt_error("libvirt at " + options_.uri));
  // The test driver has neither of the two; a connection without them is found dead by the next call.
  virConnectRegisterCloseCallback(opened.get(), &LibvirtHypervisor::on_close, this, nullptr);
  virConnectSetKeepAlive(opened.get(), kKeepAliveSeconds, kKeepAliveCount);
  lifecycle_id_ = virConnectDomainEventRegisterAny(
      opened.get(), nullptr, VIR_DOMAIN_EVENT_ID_LIFECYCLE,
      VIR_DOMAIN_EVENT_CALLBACK(&LibvirtHypervisor::on_lifecycle), this, nullptr);
  if (lifecycle_id_ < 0) return fail(libvirt_error("register for events at " + options_.uri));
  reboot_id_ = virConnectDomainEventRegisterAny(opened.get(), nullptr, VIR_DOMAIN_EVENT_ID_REBOOT,
                                                VIR_DOMAIN_EVENT_CALLBACK(&LibvirtHypervisor::on_reboot),
                                                this, nullptr);
  const bool confined = is_confined(opened.get());
  if (!confined) obs::warn("hypervisor.not_confined", {{"hint", "install and enable AppArmor on this host"}});
  std::lock_guard lock(mutex_);
  connection_ = std::move(opened);
  lost_ = false;
  confined_ = confined;
  last_error_.clear();
  return {};
}

void LibvirtHypervisor::close_connection() {
  ConnectRef old;
  {
    std::lock_guard lock(mutex_);
    old = std::move(connection_);
    connection_ = nullptr;
  }
  if (!old) return;
  if (lifecycle_id_ >= 0) virConnectDomainEventDeregisterAny(old.get(), lifecycle_id_);
  if (reboot_id_ >= 0) virConnectDomainEventDeregisterAny(old.get(), reboot_id_);
  lifecycle_id_ = reboot_id_ = -1;
  virConnectUnregisterCloseCallback(old.get(), &LibvirtHypervisor::on_close);
}

void LibvirtHypervisor::keep_connected(std::stop_token stop) {
  auto back_off = kFirstBackOff;
  const auto pause = [&](std::chrono::milliseconds time) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, stop, time, [] { return false; });
  };
  while (!stop.stop_requested()) {
    if (auto ok = open(); !ok) {
      {
        std::lock_guard lock(mutex_);
        last_error_ = ok.error().message;
      }
      obs::warn("hypervisor.connect_failed", {{"reason", ok.error().message}});
      pause(back_off);
      back_off = std::min(back_off * 2, kLastBackOff);
      continue;
    }
    back_off = kFirstBackOff;
    obs::info("hypervisor.connected", {{"uri", options_.uri}});
    changed_.notify_all();
    emit({});
    pause(kSecondLook);
    emit({});
    std::unique_lock lock(mutex_);
    while (!lost_ && !stop.stop_requested()) {
      changed_.wait_for(lock, stop, std::chrono::seconds{1}, [&] { return lost_; });
      if (!lost_ && connection_) {
        const ConnectRef alive = connection_;
        lock.unlock();
        const bool dead = virConnectIsAlive(alive.get()) == 0;
        lock.lock();
        lost_ = lost_ || dead;
      }
    }
    lock.unlock();
    if (stop.stop_requested()) return;
    obs::warn("hypervisor.connection_lost", {{"uri", options_.uri}});
    close_connection();
  }
}

void LibvirtHypervisor::emit(const VmEvent& event) {
  OnVmEvent handler;
  {
    std::lock_guard lock(mutex_);
    handler = on_event_;
  }
  if (handler) handler(event);
}

void LibvirtHypervisor::on_lifecycle(virConnectPtr, virDomainPtr domain, int event, int detail, void* self) {
  if (auto ours = lifecycle_event(virDomainGetName(domain), event, detail)) {
    static_cast<LibvirtHypervisor*>(self)->emit(*ours);
  }
}

void LibvirtHypervisor::on_reboot(virConnectPtr, virDomainPtr domain, void* self) {
  const char* name = virDomainGetName(domain);
  if (name != nullptr)
    static_cast<LibvirtHypervisor*>(self)->emit({VmEvent::Kind::rebooted, name, "it began again"});
}

void LibvirtHypervisor::on_close(virConnectPtr connection, int, void* self) {
  auto* hypervisor = static_cast<LibvirtHypervisor*>(self);
  std::lock_guard lock(hypervisor->mutex_);
  if (hypervisor->connection_.get() == connection) hypervisor->lost_ = true;
  hypervisor->changed_.notify_all();
}

std::string LibvirtHypervisor::kind() const {
  std::lock_guard lock(mutex_);
  if (!chosen_) return {};
  return kvm_ ? "kvm" : "qemu";
}

std::vector<std::string> LibvirtHypervisor::warnings() const {
  std::lock_guard lock(mutex_);
  std::vector<std::string> all;
  if (!kvm_warning_.empty()) all.push_back(kvm_warning_);
  if (!connection_) {
    all.push_back("libvirt at " + options_.uri + " does not answer: " + last_error_);
  } else if (!confined_) {
    all.push_back(
        "neither AppArmor nor SELinux confines QEMU: a guest that breaks out of QEMU owns this host");
  }
  return all;
}

Result<ConnectRef> LibvirtHypervisor::connection() const {
  std::lock_guard lock(mutex_);
  if (connection_ && !lost_) return connection_;
  return fail(ErrorCode::unavailable, "libvirt at " + options_.uri + " is not connected" +
                                          (last_error_.empty() ? "" : ": " + last_error_));
}

Result<std::pair<ConnectRef, DomainRef>> LibvirtHypervisor::domain(const InstanceId& insid) const {
  auto open = connection();
  if (!open) return fail(open.error());
  DomainRef found(virDomainLookupByName(open->get(), insid.str().c_str()));
  if (!found) return fail(libvirt_error("find VM " + insid.str()));
  return std::pair(std::move(*open), std::move(found));
}

Result<> LibvirtHypervisor::define_and_start(const VmSpec& spec) {
  auto open = connection();
  if (!open) return fail(open.error());
  if (const DomainRef old{virDomainLookupByName(open->get(), spec.insid.str().c_str())}) {
    const auto info = describe_domain(old.get(), pids_);
    if (info && info->tid == spec.tid.str()) return {};
    return fail(ErrorCode::conflict, "a VM named " + spec.insid.str() + " runs already for task '" +
                                         (info ? info->tid : std::string("unknown")) + "'");
  }
  const DomainRef started(virDomainCreateXML(open->get(), domain_xml(spec, host()).c_str(), 0));
  return started ? Result<>{} : fail(libvirt_error("start VM " + spec.insid.str()));
}

Result<> LibvirtHypervisor::receive(const VmSpec& spec, const MovePlaces& places) {
  auto open = connection();
  if (!open) return fail(open.error());
  VmSpec waiting = spec;
  waiting.incoming = true;
  const DomainRef started(
      virDomainCreateXML(open->get(), domain_xml(waiting, host()).c_str(), VIR_DOMAIN_START_PAUSED));
  if (!started) return fail(libvirt_error("receive VM " + spec.insid.str()));
  auto opened = open_for_arrival(started.get(), places);
  if (!opened) virDomainDestroy(started.get());
  return opened;
}

Result<> LibvirtHypervisor::shutdown(const InstanceId& insid) {
  auto found = domain(insid);
  if (!found) return fail(found.error());
  return press_power_button(std::move(found->first), std::move(found->second), kButtonPatience);
}

Result<> LibvirtHypervisor::destroy(const InstanceId& insid) {
  auto found = domain(insid);
  if (!found && found.error().code == ErrorCode::not_found) return {};
  if (!found) return fail(found.error());
  if (virDomainDestroy(found->second.get()) == 0) return {};
  auto error = libvirt_error("end VM " + insid.str());
  // It ended by itself in between; a transient domain is gone then.
  if (error.code == ErrorCode::not_found || error.code == ErrorCode::conflict) {
    auto now = state(insid);
    if ((!now && now.error().code == ErrorCode::not_found) || (now && *now == VmState::shutoff)) return {};
  }
  return fail(std::move(error));
}

Result<std::vector<VmInfo>> LibvirtHypervisor::list() {
  auto open = connection();
  if (!open) return fail(open.error());
  virDomainPtr* domains = nullptr;
  const int count = virConnectListAllDomains(open->get(), &domains, VIR_CONNECT_LIST_DOMAINS_ACTIVE);
  if (count < 0) return fail(libvirt_error("list VMs"));
  std::vector<VmInfo> all;
  for (int i = 0; i < count; ++i) {
    const DomainRef domain(domains[i]);
    if (auto vm = describe_domain(domain.get(), pids_)) all.push_back(std::move(*vm));
  }
  free(domains);
  // One that could not be described because the connection broke is not "gone".
  if (auto still = connection(); !still) return fail(still.error());
  return all;
}

Result<std::string> LibvirtHypervisor::screenshot(const InstanceId& insid) {
  auto found = domain(insid);
  if (!found) return fail(found.error());
  return domain_screenshot(found->first.get(), found->second.get());
}

}  // namespace

std::unique_ptr<Hypervisor> make_libvirt_hypervisor(LibvirtOptions options) {
  return std::make_unique<LibvirtHypervisor>(std::move(options));
}

}  // namespace educloud::nc
