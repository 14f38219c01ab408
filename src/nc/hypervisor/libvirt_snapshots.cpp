#include "nc/hypervisor/libvirt_snapshots.hpp"

#include "common/sys/pause.hpp"

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

/// The block nodes at the tops of the VM's qcow2 files beside `disk`, itself first: what goes with a memory.
Result<std::vector<OpenDisk>> find_disks(virDomainPtr domain, const std::filesystem::path& disk) {
  auto blocks = ask_monitor(domain, "query-block");
  if (!blocks) return fail(blocks.error());
  std::vector<OpenDisk> all;
  bool is_found = false;
  for (const auto& block : *blocks) {
    if (!block.is_object() || !block.contains("inserted")) continue;
    const auto& inserted = block["inserted"];
    if (!inserted.contains("image") || inserted["image"].value("format", "") != "qcow2") continue;
    const std::filesystem::path file = inserted["image"].value("filename", "");
    if (file.parent_path() != disk.parent_path()) continue;
    const bool is_it = file == disk;
    is_found = is_found || is_it;
    all.insert(is_it ? all.begin() : all.end(),
               {inserted.value("node-name", ""), snapshots_of(inserted["image"])});
  }
  if (is_found) return all;
  return fail(ErrorCode::conflict, "the VM does not have " + disk.string() + " open");
}

bool has(const std::vector<DiskSnapshot>& all, const std::string& name) {
  return std::any_of(all.begin(), all.end(), [&](const DiskSnapshot& one) { return one.name == name; });
}

tl::unexpected<Error> job_failed(const std::string& id, const std::string& reason) {
  if (reason.find("non-migratable") != std::string::npos) {
    return fail(
        ErrorCode::conflict,
        "a guest's memory cannot be kept while its folders come by virtiofs: take the snapshot without "
        "it, or define the VM with --folders smb and start it again");
  }
  const bool full = reason.find("No space left") != std::string::npos;
  return fail(full ? ErrorCode::exhausted : ErrorCode::corrupt, id + ": " + reason);
}

/// Waits for QEMU's job, clears it away and returns its error. False: there is none of that name.
Result<bool> finish_job(virDomainPtr domain, const std::string& id, const std::stop_token& stop) {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
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
      return job_failed(id, reason);
    }
    if (std::chrono::steady_clock::now() > deadline) return fail(ErrorCode::timeout, id + " does not end");
    if (!sys::pause(kPoll, stop)) return fail(ErrorCode::cancelled, "interrupted");
  }
}

/// On all of `disks`, with the memory in the first.
Result<> run_job(virDomainPtr domain, const std::string& what, const std::vector<OpenDisk>& disks,
                 const std::string& name, const std::stop_token& stop) {
  const std::string id = what + "-" + name;
  json devices = json::array();
  for (const auto& disk : disks) devices.push_back(disk.node);
  const json arguments{{"job-id", id}, {"tag", name}, {"vmstate", disks.front().node}, {"devices", devices}};
  if (auto begun = ask_monitor(domain, what, arguments); !begun) return fail(begun.error());
  auto done = finish_job(domain, id, stop);
  if (!done) return fail(done.error());
  return {};
}

}  // namespace

Result<std::vector<DiskSnapshot>> domain_snapshots(virDomainPtr domain, const std::filesystem::path& disk) {
  auto open = find_disks(domain, disk);
  if (!open) return fail(open.error());
  auto all = std::move(open->front().snapshots);
  // A memory of before a scratch disk was made anew fits to no disk of now.
  for (auto& one : all) {
    one.with_memory = one.with_memory &&
                      std::ranges::all_of(open->begin() + 1, open->end(),
                                          [&](const auto& other) { return has(other.snapshots, one.name); });
  }
  return all;
}

Result<> take_domain_snapshot(virDomainPtr domain, const std::filesystem::path& disk, const std::string& name,
                              bool with_memory, std::stop_token stop) {
  // One of before our restart may still be under way.
  if (auto old = finish_job(domain, "snapshot-save-" + name, stop); !old) return fail(old.error());
  auto open = find_disks(domain, disk);
  if (!open) return fail(open.error());
  if (has(open->front().snapshots, name)) return {};
  if (with_memory) return run_job(domain, "snapshot-save", *open, name, stop);
  const json arguments{{"device", open->front().node}, {"name", name}};
  auto done = ask_monitor(domain, "blockdev-snapshot-internal-sync", arguments);
  if (!done) return fail(done.error());
  return {};
}

Result<> load_domain_snapshot(virDomainPtr domain, const std::filesystem::path& disk, const std::string& name,
                              std::stop_token stop) {
  if (auto old = finish_job(domain, "snapshot-load-" + name, stop); !old) return fail(old.error());
  auto open = find_disks(domain, disk);
  if (!open) return fail(open.error());
  return run_job(domain, "snapshot-load", *open, name, stop);
}

Result<> drop_domain_snapshot(virDomainPtr domain, const std::filesystem::path& disk,
                              const std::string& name) {
  auto open = find_disks(domain, disk);
  if (!open) return fail(open.error());
  // The one that says that it exists goes last.
  for (auto at = open->rbegin(); at != open->rend(); ++at) {
    if (!has(at->snapshots, name)) continue;
    const json arguments{{"device", at->node}, {"name", name}};
    auto done = ask_monitor(domain, "blockdev-snapshot-delete-internal-sync", arguments);
    if (!done) return fail(done.error());
  }
  return {};
}

}  // namespace educloud::nc
