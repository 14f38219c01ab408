#include "nc/hypervisor/libvirt_snapshots.hpp"

#include <condition_variable>
#include <mutex>

#include "nc/hypervisor/disk_snapshots.hpp"
#include "nc/hypervisor/libvirt_connection.hpp"
#include "nc/hypervisor/libvirt_monitor.hpp"

namespace educloud::nc {
namespace {

using nlohmann::json;

constexpr std::chrono::milliseconds kPoll{50};
constexpr std::chrono::minutes kPatience{8};  ///< less than clc's with an operation

struct OpenDisk {
  std::string node;
  std::vector<DiskSnapshot> snapshots;
};

/// The block node at the top of `disk`'s chain.
Result<OpenDisk> find_disk(virDomainPtr domain, const std::filesystem::path& disk) {
  auto blocks = ask_monitor(domain, "query-block");
  if (!blocks) return fail(blocks.error());
  for (const auto& block : *blocks) {
    if (!block.is_object() || !block.contains("inserted")) continue;
    const auto& inserted = block["inserted"];
    if (!inserted.contains("image") || inserted["image"].value("filename", "") != disk.string()) continue;
    return OpenDisk{inserted.value("node-name", ""), snapshots_of(inserted["image"])};
  }
  return fail(ErrorCode::conflict, "the VM does not have " + disk.string() + " open");
}

bool has(const std::vector<DiskSnapshot>& all, const std::string& name) {
  return std::any_of(all.begin(), all.end(), [&](const DiskSnapshot& one) { return one.name == name; });
}

/// Waits for QEMU's job, clears it away and returns its error. False: there is none of that name.
Result<bool> finish_job(virDomainPtr domain, const std::string& id, const std::stop_token& stop) {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  std::mutex mutex;
  std::condition_variable_any never;
  std::unique_lock lock(mutex);
  for (;;) {
    auto jobs = ask_monitor(domain, "query-jobs");
    if (!jobs) return fail(jobs.error());
    const auto job = std::find_if(jobs->begin(), jobs->end(), [&](const json& one) {
      return one.is_object() && one.value("id", "") == id;
    });
    if (job == jobs->end()) return false;
    if (job->value("status", "") == "concluded") {
      const std::string reason = job->value("error", "");
      if (auto gone = ask_monitor(domain, "job-dismiss", {{"id", id}}); !gone) return fail(gone.error());
      if (reason.empty()) return true;
      const bool full = reason.find("No space left") != std::string::npos;
      return fail(full ? ErrorCode::exhausted : ErrorCode::corrupt, id + ": " + reason);
    }
    if (std::chrono::steady_clock::now() > deadline) return fail(ErrorCode::timeout, id + " does not end");
    never.wait_for(lock, stop, kPoll, [] { return false; });
    if (stop.stop_requested()) return fail(ErrorCode::cancelled, "interrupted");
  }
}

Result<> run_job(virDomainPtr domain, const std::string& what, const std::string& node,
                 const std::string& name, const std::stop_token& stop) {
  const std::string id = what + "-" + name;
  const json arguments{{"job-id", id}, {"tag", name}, {"vmstate", node}, {"devices", json::array({node})}};
  if (auto begun = ask_monitor(domain, what, arguments); !begun) return fail(begun.error());
  auto done = finish_job(domain, id, stop);
  if (!done) return fail(done.error());
  return {};
}

}  // namespace

Result<std::vector<DiskSnapshot>> domain_snapshots(virDomainPtr domain, const std::filesystem::path& disk) {
  auto open = find_disk(domain, disk);
  if (!open) return fail(open.error());
  return std::move(open->snapshots);
}

Result<> take_domain_snapshot(virDomainPtr domain, const std::filesystem::path& disk, const std::string& name,
                              bool with_memory, std::stop_token stop) {
  // One of before our restart may still be under way.
  if (auto old = finish_job(domain, "snapshot-save-" + name, stop); !old) return fail(old.error());
  auto open = find_disk(domain, disk);
  if (!open) return fail(open.error());
  if (has(open->snapshots, name)) return {};
  if (with_memory) return run_job(domain, "snapshot-save", open->node, name, stop);
  auto done = ask_monitor(domain, "blockdev-snapshot-internal-sync", {{"device", open->node}, {"name", name}});
  if (!done) return fail(done.error());
  return {};
}

Result<> load_domain_snapshot(virDomainPtr domain, const std::filesystem::path& disk, const std::string& name,
                              std::stop_token stop) {
  if (auto old = finish_job(domain, "snapshot-load-" + name, stop); !old) return fail(old.error());
  auto open = find_disk(domain, disk);
  if (!open) return fail(open.error());
  return run_job(domain, "snapshot-load", open->node, name, stop);
}

Result<> drop_domain_snapshot(virDomainPtr domain, const std::filesystem::path& disk,
                              const std::string& name) {
  auto open = find_disk(domain, disk);
  if (!open) return fail(open.error());
  if (!has(open->snapshots, name)) return {};
  auto done = ask_monitor(domain, "blockdev-snapshot-delete-internal-sync", {{"device", open->node}, {"name", name}});
  if (!done) return fail(done.error());
  return {};
}

}  // namespace educloud::nc
