#include "nc/app/inventory.hpp"

#include <set>

#include "common/base/ids.hpp"
#include "common/obs/log.hpp"
#include "nc/app/instance_record.hpp"

namespace educloud::nc {
namespace {

/// Of either list in one part: 200 entries of each stay under 64 KiB, cc's stamp included.
constexpr std::size_t kPerPart = 100;
constexpr std::size_t kParts = 100;
constexpr std::int64_t kRetryMs = 5'000;
constexpr std::chrono::seconds kExpiration{30};  ///< an older one would be compared with what has changed

/// Nothing of it is left here that clc would want to know of.
bool is_over(const inbox::Entry& entry) {
  return entry.finished && entry.status && entry.status->event == to_string(task::Event::deleted);
}

msg::InventoryTask describe(const inbox::Entry& entry) {
  msg::InventoryTask one;
  one.tid = entry.command.tid;
  one.cmdid = entry.command.cmdid;
  one.op = entry.command.op;
  one.epoch = entry.command.epoch;
  one.attempt = entry.command.attempt;
  one.seq = entry.status ? entry.status->seq : -1;
  one.finished = entry.finished ? 1 : 0;
  if (entry.command.runtime_option) {
    one.rdp_port = entry.command.runtime_option->rdp_port;
    one.web_port = entry.command.runtime_option->web_port;
  }
  if (const auto& move = entry.command.move) {
    one.moves_to = move->nid;
    one.rdp_port = move->rdp_port;
    one.web_port = move->web_port;
  }
  return one;
}

}  // namespace

std::vector<msg::Inventory> split_inventory(const msg::Inventory& frame, std::vector<msg::InventoryVm> vms,
                                            std::vector<msg::InventoryTask> tasks) {
  // More than that no node has; what is cut off would look like missing, so it is said.
  if (std::max(vms.size(), tasks.size()) > kPerPart * kParts) {
    obs::error("inventory.too_large", {{"vms", vms.size()}, {"tasks", tasks.size()}});
    vms.resize(std::min(vms.size(), kPerPart * kParts));
    tasks.resize(std::min(tasks.size(), kPerPart * kParts));
  }
  const std::size_t most = std::max<std::size_t>({1, vms.size(), tasks.size()});
  const std::size_t parts = (most + kPerPart - 1) / kPerPart;
  std::vector<msg::Inventory> out(parts, frame);
  for (std::size_t i = 0; i < parts; ++i) {
    out[i].part = static_cast<int>(i + 1);
    out[i].parts = static_cast<int>(parts);
  }
  for (std::size_t i = 0; i < vms.size(); ++i) out[i / kPerPart].vms.push_back(std::move(vms[i]));
  for (std::size_t i = 0; i < tasks.size(); ++i) out[i / kPerPart].tasks.push_back(std::move(tasks[i]));
  return out;
}

Result<std::vector<msg::Inventory>> InventoryReporter::take() {
  // The tasks first: a command taken over in between then seems missing, which is harmless, and not a VM
  // that nobody wants.
  auto entries = inbox_.tasks();
  auto listed = hypervisor_.list();
  if (!listed) return fail(listed.error());
  std::vector<msg::InventoryVm> vms;
  std::set<std::string> seen;
  for (const auto& vm : *listed) {
    seen.insert(vm.insid.str());
    vms.push_back(
        {vm.insid.str(), vm.tid, vm.cmdid, std::string(to_string(vm.state)), vm.epoch, vm.exclusive ? 1 : 0});
  }
  std::vector<msg::InventoryTask> tasks;
  for (const auto& entry : entries) {
    if (const auto tid = TaskId::parse(entry.command.tid)) seen.insert(tid->instance.str());
    if (!is_over(entry)) tasks.push_back(describe(entry));
  }
  if (auto records = all_records(options_.layout)) {
    for (const auto& [insid, record] : *records) {
      if (!seen.contains(insid.str())) vms.push_back({insid.str(), record.tid, "", "shutoff", 0, 0});
    }
  }
  msg::Inventory frame;
  frame.nid = options_.nid;
  frame.host = options_.host;
  frame.ts = clock_.wall_ms();
  frame.round = new_command_id().str();
  frame.lease_epoch = lease_epoch_();
  return split_inventory(frame, std::move(vms), std::move(tasks));
}

void InventoryReporter::tick() {
  const std::int64_t now = clock_.boot_ms();
  if (!bus_.is_ready()) return;
  if (!due_.exchange(false) && now - sent_at_ < kEveryMs) return;
  sent_at_ = now;
  auto parts = take();
  if (!parts) {
    obs::warn("inventory.not_taken", {{"reason", parts.error().message}});
    sent_at_ = now - kEveryMs + kRetryMs;
    return;
  }
  for (const auto& part : *parts) {
    bus::Outgoing message{options_.exchange, options_.routing_key, msg::serialize(part),
                          part.round + "-" + std::to_string(part.part), kExpiration};
    message.persistent = false;
    // A round that is not complete is not compared; the next one comes.
    if (auto ok = bus_.publish(std::move(message), [](bus::Outcome) {}); !ok) {
      obs::debug("inventory.not_queued", {{"reason", ok.error().message}});
      return;
    }
  }
}

}  // namespace educloud::nc
