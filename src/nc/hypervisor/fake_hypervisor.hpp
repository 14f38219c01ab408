#pragma once

#include <map>
#include <mutex>
#include <set>

#include "nc/hypervisor/hypervisor.hpp"

namespace educloud::nc {

/// VMs that exist only in memory: for unit tests, and `hypervisor = "fake"` to try a cloud without guests.
class FakeHypervisor : public Hypervisor {
 public:
  Result<> start(OnVmEvent on_event) override;
  void stop() override;
  std::string kind() const override { return "fake"; }
  std::vector<std::string> warnings() const override;
  Result<> set_disk_secret(const InstanceId& insid, const std::string& secret) override;
  Result<> drop_disk_secret(const InstanceId& insid) override;
  Result<> define_and_start(const VmSpec& spec) override;
  Result<> shutdown(const InstanceId& insid) override;
  Result<> destroy(const InstanceId& insid) override;
  Result<> pause(const InstanceId& insid) override;
  Result<> resume(const InstanceId& insid) override;
  Result<> reboot(const InstanceId& insid) override;
  Result<> reset(const InstanceId& insid) override;
  Result<> set_limits(const InstanceId& insid, const msg::Limits& limits) override;
  Result<> divert_network(const InstanceId& insid, const NetSockets& sockets) override;
  Result<> undivert_network(const InstanceId& insid) override;
  Result<GuestFacts> guest_facts(const InstanceId& insid) override;
  Result<std::vector<DiskSnapshot>> snapshots(const InstanceId& insid,
                                              const std::filesystem::path& disk) override;
  Result<> take_snapshot(const InstanceId& insid, const std::filesystem::path& disk, const std::string& name,
                         bool with_memory, std::stop_token stop) override;
  Result<> load_snapshot(const InstanceId& insid, const std::filesystem::path& disk, const std::string& name,
                         std::stop_token stop) override;
  Result<> drop_snapshot(const InstanceId& insid, const std::filesystem::path& disk,
                         const std::string& name) override;
  Result<std::string> recipe(const InstanceId& insid) override;
  Result<> start_again(const std::string& recipe) override;
  Result<> receive(const VmSpec& spec, const MovePlaces& places) override;
  Result<bool> has_arrived(const InstanceId& insid) override;
  Result<> take_over(const InstanceId& insid) override;
  Result<> send_away(const InstanceId& insid, const MovePlaces& places, const OnMoved& moved,
                     std::stop_token stop) override;
  Result<> keep_here(const InstanceId& insid) override;
  Result<std::vector<VmInfo>> list() override;
  Result<VmState> state(const InstanceId& insid) override;
  Result<std::string> screenshot(const InstanceId& insid) override;

  // What a test may do to it.
  void fail_next_start(Error error);
  void set_reachable(bool reachable);
  /// The guest neither powers off nor restarts when it is asked to.
  void ignore_power_button(bool ignore);
  /// The next VM that is to be sent away is not.
  void fail_next_move(Error error);
  /// A load of that snapshot fails from now on.
  void spoil_snapshot(const std::string& name);
  void set_facts(const InstanceId& insid, GuestFacts facts);
  /// The VM ends by itself; with `silently` nobody is told.
  void end(const InstanceId& insid, VmEvent::Kind kind, bool silently = false);
  std::optional<VmSpec> spec(const InstanceId& insid) const;
  std::map<std::string, std::string> disk_secrets() const;
  /// Sockets that stand for the VM's network card, as if of its QEMU; closed when the VM ends.
  std::optional<NetSockets> diverted(const InstanceId& insid) const;
  int starts() const;
  int reboots() const;
  int resets() const;

 private:
  Result<> check() const;
  void emit(const VmEvent& event);
  Result<> switch_to(const InstanceId& insid, VmState to, VmEvent::Kind kind);

  mutable std::mutex mutex_;
  OnVmEvent on_event_;
  std::map<std::string, std::pair<VmSpec, VmInfo>> vms_;
  std::map<std::string, std::string> disk_secrets_;
  std::map<std::string, GuestFacts> facts_;
  struct Diverted;
  std::map<std::string, std::shared_ptr<Diverted>> diverted_;
  std::map<std::string, std::vector<DiskSnapshot>> snapshots_;  ///< by disk, as in its file
  std::set<std::string> spoilt_;
  std::optional<Error> next_error_, next_move_error_;
  bool reachable_ = true;
  bool ignore_power_button_ = false;
  int starts_ = 0;
  int reboots_ = 0;
  int resets_ = 0;
};

}  // namespace educloud::nc
