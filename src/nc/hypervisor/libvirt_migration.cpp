#include "nc/hypervisor/libvirt_migration.hpp"

#include <chrono>

#include "common/obs/log.hpp"
#include "common/sys/pause.hpp"
#include "nc/hypervisor/libvirt_connection.hpp"
#include "nc/hypervisor/libvirt_domain.hpp"
#include "nc/hypervisor/libvirt_monitor.hpp"

namespace educloud::nc {
namespace {

using nlohmann::json;
using std::chrono::steady_clock;

constexpr const char* kName = "edu-move-";  // of our jobs and nodes in QEMU
constexpr std::chrono::milliseconds kPoll{100};
constexpr std::chrono::milliseconds kQuickPoll{10};  ///< while the guest stands still
constexpr std::chrono::seconds kStillPatience{30};   ///< the guest stands still for this long at most
constexpr std::chrono::seconds kCancelPatience{30};
constexpr std::int64_t kBytesPerSecond = std::int64_t{1} << 30;
constexpr int kPauseMs = 300;  ///< what is left when the guest is stopped may take this long to send

/// A disk that the VM writes to and that lies in its own folder.
struct LocalDisk {
  std::string device;  ///< QEMU's name of the drive; the same on both nodes
  std::string node;
};

Result<std::vector<LocalDisk>> local_disks(virDomainPtr domain, const std::filesystem::path& folder) {
  auto blocks = ask_monitor(domain, "query-block");
  if (!blocks) return fail(blocks.error());
  std::vector<LocalDisk> all;
  for (const auto& block : *blocks) {
    if (!block.is_object() || !block.contains("inserted")) continue;
    const auto& inserted = block["inserted"];
    if (inserted.value("ro", false) || !inserted.value("file", "").starts_with(folder.string() + "/"))
      continue;
    all.push_back({block.value("qdev", ""), inserted.value("node-name", "")});
  }
  if (all.empty()) return fail(ErrorCode::internal, "the VM has no disk in " + folder.string());
  return all;
}

json unix_address(const std::filesystem::path& path) {
  return {{"type", "unix"}, {"path", path.string()}};
}

bool is_ours(const json& job) {
  return job.is_object() && job.value("id", "").starts_with(kName);
}

/// Asks until `done` says something. Errors: timeout, cancelled.
template <typename Done>
Result<> wait_until(const Done& done, std::string_view what, std::chrono::seconds patience,
                    std::chrono::milliseconds poll, const std::stop_token& stop) {
  const auto deadline = steady_clock::now() + patience;
  for (;;) {
    Result<bool> now = done();
    if (!now) return fail(now.error());
    // Whoever has changed his mind must not find it gone.
    if (stop.stop_requested()) return fail(ErrorCode::cancelled, "interrupted");
    if (*now) return {};
    if (steady_clock::now() > deadline)
      return fail(ErrorCode::timeout, std::string(what) + " takes too long");
    (void)sys::pause(poll, stop);
  }
}

Result<> begin_mirrors(virDomainPtr domain, const std::vector<LocalDisk>& disks, const MovePlaces& places) {
  for (std::size_t i = 0; i < disks.size(); ++i) {
    const std::string name = kName + std::to_string(i);
    const json target{{"node-name", name},
                      {"driver", "nbd"},
                      {"server", unix_address(places.disks)},
                      {"export", disks[i].device}};
    if (auto ok = ask_monitor(domain, "blockdev-add", target); !ok) return fail(ok.error());
    // Both stand on the same version: only what this VM wrote is copied.
    const json mirror{{"job-id", name},
                      {"device", disks[i].node},
                      {"target", name},
                      {"sync", "top"},
                      {"auto-dismiss", false}};
    if (auto ok = ask_monitor(domain, "blockdev-mirror", mirror); !ok) return fail(ok.error());
  }
  return {};
}

/// True once all mirrors are in step. Errors: one has ended.
Result<bool> are_mirrored(virDomainPtr domain, const OnMoved& moved) {
  auto jobs = ask_monitor(domain, "query-jobs");
  if (!jobs) return fail(jobs.error());
  std::uint64_t done = 0, total = 0;
  bool ready = true;
  for (const auto& job : *jobs) {
    if (!is_ours(job)) continue;
    const std::string status = job.value("status", "");
    if (status == "concluded" || status == "aborting" || status == "null")
      return fail(ErrorCode::unavailable, "copying the disk: " + job.value("error", "it ended early"));
    ready = ready && status == "ready";
    done += job.value("current-progress", std::uint64_t{0});
    total += job.value("total-progress", std::uint64_t{0});
  }
  if (moved) moved({MoveStep::disks, done, total});
  return ready;
}

Result<> set_capabilities(virDomainPtr domain, bool on) {
  json capabilities = json::array();
  // Stopped before its last dirty pages go, so that the mirrors can be ended on a disk that stands still; and
  // slowed down if it writes faster than they go.
  for (const char* name : {"pause-before-switchover", "auto-converge"})
    capabilities.push_back({{"capability", name}, {"state", on}});
  auto set = ask_monitor(domain, "migrate-set-capabilities", {{"capabilities", capabilities}});
  return set ? Result<>{} : fail(set.error());
}

Result<> set_up_migration(virDomainPtr domain) {
  if (auto ok = set_capabilities(domain, true); !ok) return ok;
  auto set = ask_monitor(domain, "migrate-set-parameters",
                         {{"max-bandwidth", kBytesPerSecond}, {"downtime-limit", kPauseMs}});
  if (!set) return fail(set.error());
  return {};
}

/// QEMU's word for how its migration gets on. Errors: it has failed.
Result<std::string> migration_status(virDomainPtr domain, const OnMoved& moved) {
  auto info = ask_monitor(domain, "query-migrate");
  if (!info) return fail(info.error());
  const std::string status = info->value("status", "none");
  if (status == "failed" || status == "cancelled" || status == "cancelling" || status == "none")
    return fail(ErrorCode::unavailable, "sending the memory: " + info->value("error-desc", "it " + status));
  if (moved && info->contains("ram")) {
    const auto& ram = (*info)["ram"];
    const auto sent = ram.value("transferred", std::uint64_t{0});
    moved({MoveStep::memory, sent, sent + ram.value("remaining", std::uint64_t{0})});
  }
  return status;
}

/// Our jobs end and are cleared away, and the nodes they wrote to.
Result<> end_mirrors(virDomainPtr domain, bool in_step) {
  auto jobs = ask_monitor(domain, "query-jobs");
  if (!jobs) return fail(jobs.error());
  for (const auto& job : *jobs) {
    if (!is_ours(job) || job.value("status", "") == "concluded") continue;
    // Cancelled when in step and not by force, a mirror ends with its target complete.
    (void)ask_monitor(domain, "block-job-cancel", {{"device", job.value("id", "")}, {"force", !in_step}});
  }
  std::string trouble;
  const auto all_ended = [&]() -> Result<bool> {
    auto now = ask_monitor(domain, "query-jobs");
    if (!now) return fail(now.error());
    bool ended = true;
    for (const auto& job : *now) {
      if (!is_ours(job)) continue;
      if (job.value("status", "") != "concluded") {
        ended = false;
        continue;
      }
      if (trouble.empty()) trouble = job.value("error", "");
      (void)ask_monitor(domain, "job-dismiss", {{"id", job.value("id", "")}});
    }
    return ended;
  };
  if (auto ok = wait_until(all_ended, "the end of the disks' copies", kStillPatience, kQuickPoll, {}); !ok)
    return ok;
  for (int i = 0; i < kMaxMovedDisks; ++i)
    (void)ask_monitor(domain, "blockdev-del", {{"node-name", kName + std::to_string(i)}});
  if (in_step && !trouble.empty()) return fail(ErrorCode::unavailable, "copying the disk: " + trouble);
  return {};
}

}  // namespace

Result<> open_for_arrival(virDomainPtr domain, const MovePlaces& places) {
  auto disks = local_disks(domain, places.folder);
  if (!disks) return fail(disks.error());
  const json address{{"type", "unix"}, {"data", {{"path", places.disks.string()}}}};
  if (auto ok = ask_monitor(domain, "nbd-server-start", {{"addr", address}}); !ok) return fail(ok.error());
  for (std::size_t i = 0; i < disks->size(); ++i) {
    const auto& disk = (*disks)[i];
    const json exported{{"type", "nbd"},
                        {"id", kName + std::to_string(i)},
                        {"node-name", disk.node},
                        {"name", disk.device},
                        {"writable", true}};
    if (auto ok = ask_monitor(domain, "block-export-add", exported); !ok) return fail(ok.error());
  }
  auto ok = ask_monitor(domain, "migrate-incoming", {{"uri", "unix:" + places.memory.string()}});
  if (!ok) return fail(ok.error());
  return {};
}

Result<bool> domain_has_arrived(virDomainPtr domain) {
  auto status = ask_monitor(domain, "query-status");
  if (!status) return fail(status.error());
  const std::string now = status->value("status", "");
  if (now == "running") return true;
  if (now != "paused") return false;
  auto info = ask_monitor(domain, "query-migrate");
  if (!info) return fail(info.error());
  return info->value("status", "") == "completed";
}

Result<> take_over_domain(virDomainPtr domain) {
  auto arrived = domain_has_arrived(domain);
  if (!arrived) return fail(arrived.error());
  if (!*arrived) return fail(ErrorCode::unavailable, "not all of the VM has arrived yet");
  // Not there any more when this is done again. No writer is left: the other side closed it before.
  (void)ask_monitor(domain, "nbd-server-stop");
  return resume_domain(domain);
}

Result<> send_domain_away(virDomainPtr domain, const MovePlaces& places, const OnMoved& moved,
                          const std::stop_token& stop) {
  auto disks = local_disks(domain, places.folder);
  if (!disks) return fail(disks.error());
  if (disks->size() > kMaxMovedDisks) return fail(ErrorCode::conflict, "it has too many disks to be moved");
  if (auto ok = begin_mirrors(domain, *disks, places); !ok) return ok;
  const auto mirrored = [&] { return are_mirrored(domain, moved); };
  if (auto ok = wait_until(mirrored, "copying the disks", places.patience, kPoll, stop); !ok) return ok;
  if (auto ok = set_up_migration(domain); !ok) return ok;
  auto begun = ask_monitor(domain, "migrate", {{"uri", "unix:" + places.memory.string()}});
  if (!begun) return fail(begun.error());
  const auto at = [&](std::string_view wanted) {
    return [&, wanted]() -> Result<bool> {
      auto status = migration_status(domain, moved);
      if (!status) return fail(status.error());
      if (*status == wanted) return true;
      auto in_step = *status == "active" ? are_mirrored(domain, nullptr) : Result<bool>(true);
      if (!in_step) return fail(in_step.error());
      return false;
    };
  };
  if (auto ok = wait_until(at("pre-switchover"), "sending the memory", places.patience, kPoll, stop); !ok)
    return ok;
  // It stands still from here on.
  if (auto ok = end_mirrors(domain, true); !ok) return ok;
  auto goes_on = ask_monitor(domain, "migrate-continue", {{"state", "pre-switchover"}});
  if (!goes_on) return fail(goes_on.error());
  return wait_until(at("completed"), "sending the last of the memory", kStillPatience, kQuickPoll, {});
}

Result<> keep_domain_here(virDomainPtr domain) {
  const auto at_rest = [&]() -> Result<bool> {
    auto info = ask_monitor(domain, "query-migrate");
    if (!info) return fail(info.error());
    const std::string status = info->value("status", "none");
    return status == "none" || status == "completed" || status == "failed" || status == "cancelled";
  };
  auto rests = at_rest();
  if (!rests) return fail(rests.error());
  if (!*rests) {
    (void)ask_monitor(domain, "migrate_cancel");
    if (auto ok = wait_until(at_rest, "ending the migration", kCancelPatience, kPoll, {}); !ok) return ok;
  }
  if (auto ok = end_mirrors(domain, false); !ok) return ok;
  // Snapshots with memory use the same machinery.
  (void)set_capabilities(domain, false);
  auto status = ask_monitor(domain, "query-status");
  if (!status) return fail(status.error());
  if (status->value("running", false)) return {};
  auto goes_on = ask_monitor(domain, "cont");
  if (!goes_on) return fail(goes_on.error());
  return {};
}

}  // namespace educloud::nc
