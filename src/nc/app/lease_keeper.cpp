#include "nc/app/lease_keeper.hpp"

#include "common/msg/lease.hpp"
#include "common/obs/log.hpp"
#include "common/obs/metrics.hpp"
#include "common/sys/pause.hpp"
#include "nc/app/lease_file.hpp"

namespace educloud::nc {

LeaseKeeper::LeaseKeeper(Options options, Hypervisor& hypervisor, const Clock& clock)
    : options_(std::move(options)),
      hypervisor_(hypervisor),
      clock_(clock),
      lease_(clock.boot_ms(), read_lease_file(options_.state_dir)) {}

void LeaseKeeper::take(const bus::Delivery& delivery) {
  const auto lease = msg::parse<msg::Lease>(delivery.body);
  if (!lease || !delivery.user_id.starts_with("cc-")) {
    obs::warn("lease.refused",
              {{"sender", delivery.user_id}, {"reason", lease ? "not sent by a cc" : lease.error().message}});
    return delivery.settle(bus::Verdict::reject);
  }
  delivery.settle(bus::Verdict::ack);
  const std::int64_t now = clock_.boot_ms();
  bool is_new_epoch = false;
  for (const auto& grant : lease->grants) {
    if (grant.host != options_.host) continue;
    const std::lock_guard lock(mutex_);
    const std::int64_t before = lease_.epoch();
    if (!lease_.granted(grant.epoch, now)) {
      obs::warn("lease.too_old", {{"epoch", grant.epoch}, {"seen", before}});
      continue;
    }
    if (before != 0 && grant.epoch > before)
      obs::warn("lease.was_lost", {{"epoch", grant.epoch}, {"before", before}});
    is_new_epoch = is_new_epoch || grant.epoch > before;
    auto written = write_lease_file(options_.state_dir, now);
    if (!written && !is_warned_) obs::error("lease.not_noted", {{"reason", written.error().message}});
    is_warned_ = !written;
    changed_.notify_all();
  }
  if (is_new_epoch) options_.on_new_epoch();
}

Result<> LeaseKeeper::may_start(std::stop_token stop) {
  std::unique_lock lock(mutex_);
  const auto holds = [&] { return lease_.may_start(clock_.boot_ms()); };
  if (holds() || changed_.wait_for(lock, stop, options_.patience, holds)) return {};
  if (stop.stop_requested()) return fail(ErrorCode::cancelled, "interrupted");
  return fail(
      ErrorCode::unavailable,
      "no word from clc for " + std::to_string(lease_.age_ms(clock_.boot_ms()) / 1000) +
          " s: it may start this elsewhere, so nothing new starts here; check educloud-cc, the broker "
          "and the network of this node");
}

void LeaseKeeper::tick() {
  std::int64_t age_ms = 0;
  bool expired = false;
  {
    const std::lock_guard lock(mutex_);
    age_ms = lease_.age_ms(clock_.boot_ms());
    expired = !lease_.may_run_exclusive(clock_.boot_ms());
  }
  obs::metrics().gauge("educloud_nc_lease_age_seconds", "Since clc's last grant, or our start",
                       static_cast<double>(age_ms) / 1000);
  if (expired != was_expired_) {
    obs::warn(expired ? "lease.expired" : "lease.renewed", {{"age_s", age_ms / 1000}});
    was_expired_ = expired;
  }
  if (!expired) return;
  auto vms = hypervisor_.list();
  if (!vms) return;  // the watchdog knows another way
  for (const auto& vm : *vms) {
    if (!vm.exclusive) continue;
    obs::error("lease.vm_ended", {{"insid", vm.insid.str()}, {"tid", vm.tid}, {"age_s", age_ms / 1000}});
    obs::metrics().count("educloud_nc_lease_vms_ended_total", "VMs ended because the lease had run out");
    {
      const std::lock_guard lock(mutex_);
      ended_.insert(vm.insid.str());
    }
    if (auto ok = hypervisor_.destroy(vm.insid); !ok)
      obs::error("lease.vm_not_ended", {{"insid", vm.insid.str()}, {"reason", ok.error().message}});
  }
}

bool LeaseKeeper::has_ended(const InstanceId& insid) {
  const std::lock_guard lock(mutex_);
  return ended_.erase(insid.str()) > 0 || !lease_.may_run_exclusive(clock_.boot_ms());
}

std::int64_t LeaseKeeper::epoch() const {
  const std::lock_guard lock(mutex_);
  return lease_.epoch();
}

void LeaseKeeper::start() {
  thread_ = std::jthread([this](std::stop_token stop) {
    while (!stop.stop_requested()) {
      try {
        tick();
      } catch (const std::exception& e) {
        obs::error("lease.exception", {{"what", e.what()}});
      }
      (void)sys::pause(std::chrono::seconds{1}, stop);
    }
  });
}

void LeaseKeeper::stop() {
  if (!thread_.joinable()) return;
  thread_.request_stop();
  thread_.join();
}

}  // namespace educloud::nc
