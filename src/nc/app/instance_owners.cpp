#include "nc/app/instance_owners.hpp"

namespace educloud::nc {

InstanceOwners::Hold::~Hold() {
  if (owners_ == nullptr) return;
  {
    const std::lock_guard lock(owners_->mutex_);
    owners_->owners_.erase(insid_);
  }
  owners_->changed_.notify_all();
}

Result<InstanceOwners::Hold> InstanceOwners::receive(const InstanceId& insid, std::int64_t epoch) {
  const std::lock_guard lock(mutex_);
  const auto [at, is_ours] = owners_.try_emplace(insid.str(), Owner{{}, true, epoch});
  if (!is_ours) return fail(ErrorCode::conflict, "VM " + insid.str() + " is being worked on on this node");
  return Hold(this, insid.str(), at->second.stop);
}

Result<InstanceOwners::Hold> InstanceOwners::take(const InstanceId& insid, std::int64_t epoch,
                                                  const std::stop_token& stop,
                                                  std::chrono::milliseconds patience) {
  std::unique_lock lock(mutex_);
  // A receiver that begins while we wait is asked too.
  const auto is_free = [&] {
    const auto at = owners_.find(insid.str());
    if (at != owners_.end() && at->second.receives && at->second.epoch <= epoch)
      at->second.stop.request_stop();
    return at == owners_.end();
  };
  if (!changed_.wait_for(lock, stop, patience, is_free)) {
    if (stop.stop_requested()) return fail(ErrorCode::cancelled, "interrupted");
    return fail(ErrorCode::unavailable, "VM " + insid.str() + " is being worked on on this node: try again");
  }
  const auto at = owners_.try_emplace(insid.str()).first;
  return Hold(this, insid.str(), at->second.stop);
}

}  // namespace educloud::nc
