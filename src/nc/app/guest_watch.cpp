#include "nc/app/guest_watch.hpp"

#include "common/obs/log.hpp"
#include "common/sys/pause.hpp"

namespace educloud::nc {
namespace {

constexpr std::chrono::seconds kEvery{5};

}  // namespace

void GuestWatch::look(std::stop_token stop) {
  auto vms = hypervisor_.list();
  if (!vms) return;
  std::map<std::string, GuestFacts> found;
  for (const auto& vm : *vms) {
    if (stop.stop_requested()) return;
    GuestFacts facts;
    // A guest that stands still is as it was.
    if (vm.state != VmState::running) facts = this->facts(vm.insid);
    if (vm.state == VmState::running) facts = hypervisor_.guest_facts(vm.insid).value_or(GuestFacts{});
    found[vm.insid.str()] = std::move(facts);
  }
  const std::lock_guard lock(mutex_);
  facts_ = std::move(found);
}

GuestFacts GuestWatch::facts(const InstanceId& insid) const {
  const std::lock_guard lock(mutex_);
  const auto at = facts_.find(insid.str());
  return at == facts_.end() ? GuestFacts{} : at->second;
}

void GuestWatch::start() {
  thread_ = std::jthread([this](std::stop_token stop) {
    while (!stop.stop_requested()) {
      try {
        look(stop);
      } catch (const std::exception& e) {
        obs::error("guest_watch.exception", {{"what", e.what()}});
      }
      (void)sys::pause(kEvery, stop);
    }
  });
}

void GuestWatch::stop() {
  if (!thread_.joinable()) return;
  thread_.request_stop();
  thread_.join();
}

}  // namespace educloud::nc
