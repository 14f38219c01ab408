#include "nc/app/sweeper.hpp"

#include <chrono>

#include "common/obs/log.hpp"
#include "common/obs/metrics.hpp"
#include "nc/app/instance_record.hpp"

namespace educloud::nc {
namespace fs = std::filesystem;
namespace {

std::vector<fs::path> entries_of(const fs::path& folder) {
  std::vector<fs::path> out;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    out.push_back(entry->path());
  }
  return out;
}

/// How it stands in the names of staged files.
std::string version_name(const std::string& imgid, int version) {
  return imgid + "-" + std::to_string(version);
}

bool is_old(const fs::path& path) {
  std::error_code error;
  const auto written = fs::last_write_time(path, error);
  return !error &&
         fs::file_time_type::clock::now() - written > std::chrono::milliseconds{OrphanSweeper::kGraceMs};
}

void count(const char* result, const std::string& what) {
  obs::metrics().count("educloud_nc_orphans_total", "What belongs to no task, by what was done", 1,
                       {{"result", result}, {"what", what}});
}

}  // namespace

std::optional<OrphanSweeper::Owners> OrphanSweeper::owners() {
  Owners out;
  auto vms = hypervisor_.list();
  if (!vms) return std::nullopt;  // not knowing is not "none"
  for (const auto& vm : *vms) {
    out.instances.insert(vm.insid.str());
    if (const auto tid = TaskId::parse(vm.tid)) out.builds.insert(tid->target.str());
  }
  for (const auto& entry : inbox_.tasks()) {
    const auto tid = TaskId::parse(entry.command.tid);
    const bool is_over =
        entry.finished && entry.status && entry.status->event == to_string(task::Event::deleted);
    if (!tid || is_over) continue;
    out.instances.insert(tid->instance.str());
    out.builds.insert(tid->target.str());
    if (entry.command.source)
      out.versions.insert(version_name(entry.command.source->imgid, entry.command.source->version));
  }
  auto records = all_records(layout_);
  if (!records) return std::nullopt;
  for (const auto& [insid, record] : *records) {
    if (record.lazy) out.versions.insert(version_name(record.imgid, record.version));
  }
  return out;
}

std::vector<OrphanSweeper::Orphan> OrphanSweeper::look(const Owners& owners) const {
  std::vector<Orphan> found;
  for (const auto& path : entries_of(layout_.instances())) {
    auto insid = InstanceId::parse(path.filename().string());
    if (!insid || owners.instances.contains(insid->str())) continue;
    const bool may_go = !keeps_overlay(*insid) && kind_of(*insid) != InstanceKind::VS;
    found.push_back({path, "instance", std::move(*insid), may_go});
  }
  for (const auto& path : entries_of(layout_.prefix() / "tmp/images")) {
    const auto imgid = ImageId::parse(path.filename().string());
    if (imgid && !owners.builds.contains(imgid->str())) found.push_back({path, "build", std::nullopt, false});
  }
  look_at_transfers(owners, found);
  return found;
}

void OrphanSweeper::look_at_transfers(const Owners& owners, std::vector<Orphan>& found) const {
  for (const auto& path : entries_of(layout_.prefix() / "tmp/staging")) {
    const auto kind = path.extension();
    // A version that is being flattened has no task.
    if (kind != ".part" && kind != ".journal") continue;
    if (owners.versions.contains(path.stem().string()) || !is_old(path)) continue;
    found.push_back({path, "transfer", std::nullopt, true});
  }
}

void OrphanSweeper::remove(const Orphan& orphan) {
  const auto done = orphan.desktop ? node_.forget(*orphan.desktop) : remove_file(orphan.path);
  if (done) {
    obs::warn("orphan.removed", {{"path", orphan.path.string()}, {"what", orphan.what}});
    count("removed", orphan.what);
  } else {
    obs::warn("orphan.not_removed", {{"path", orphan.path.string()}, {"reason", done.error().message}});
  }
}

void OrphanSweeper::tick() {
  const std::int64_t now = clock_.boot_ms();
  if (now - looked_at_ < kLookMs) return;
  looked_at_ = now;
  // What a task makes after this looks like an orphan once, and not again in 10 min.
  auto known = owners();
  if (!known) return;
  std::map<std::string, std::int64_t> still;
  for (const auto& orphan : look(*known)) {
    const auto name = orphan.path.string();
    const auto seen = seen_.find(name);
    if (seen == seen_.end()) {
      obs::warn("orphan.seen",
                {{"path", name},
                 {"what", orphan.what},
                 {"next", orphan.may_go ? "removed in 10 min" : "clc or an operator decides"}});
      count("seen", orphan.what);
      still[name] = now;
    } else if (orphan.may_go && now - seen->second >= kGraceMs) {
      remove(orphan);
    } else {
      still[name] = seen->second;
    }
  }
  seen_ = std::move(still);
}

}  // namespace educloud::nc
