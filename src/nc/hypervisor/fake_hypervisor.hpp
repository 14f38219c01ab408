#pragma once

#include <map>
#include <mutex>

#include "nc/hypervisor/hypervisor.hpp"

namespace educloud::nc {

/// VMs that exist only in memory: for unit tests, and `hypervisor = "fake"` to try a cloud without guests.
class FakeHypervisor : public Hypervisor {
 public:
  Result<> start(OnVmEvent on_event) override;
  void stop() override;
  std::string kind() const override { return "fake"; }
  std::vector<std::string> warnings() const override;
  Result<> define_and_start(const VmSpec& spec) override;
  Result<> shutdown(const InstanceId& insid) override;
  Result<> destroy(const InstanceId& insid) override;
  Result<std::vector<VmInfo>> list() override;
  Result<VmState> state(const InstanceId& insid) override;
  Result<std::string> screenshot(const InstanceId& insid) override;

  // What a test may do to it.
  void fail_next_start(Error error);
  void set_reachable(bool reachable);
  void ignore_power_button(bool ignore);
  /// The VM ends by itself; with `silently` nobody is told.
  void end(const InstanceId& insid, VmEvent::Kind kind, bool silently = false);
  std::optional<VmSpec> spec(const InstanceId& insid) const;
  int starts() const;

 private:
  Result<> check() const;
  void emit(const VmEvent& event);

  mutable std::mutex mutex_;
  OnVmEvent on_event_;
  std::map<std::string, std::pair<VmSpec, VmInfo>> vms_;
  std::optional<Error> next_error_;
  bool reachable_ = true;
  bool ignore_power_button_ = false;
  int starts_ = 0;
};

}  // namespace educloud::nc
