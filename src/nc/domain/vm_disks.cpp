// Which disks a VM may have besides c:.
#include <algorithm>

#include "nc/domain/vm_spec.hpp"

namespace educloud::nc {
namespace {

using PathKind = DiskPath::Kind;
constexpr const char* kKey = "runtime_option.disks";

tl::unexpected<Error> refuse(std::string why) {
  return fail(ErrorCode::invalid_argument, std::move(why), kKey);
}

Result<> check_mode(const msg::Disk& disk, std::string_view wanted) {
  if (disk.mtype == wanted) return {};
  return refuse("disk " + disk.file + " is to be " + std::string(wanted) + ", not " + disk.mtype);
}

Result<> check_machine(const msg::Disk& disk, const DiskPath& path, const TaskId& tid) {
  const bool build = path.kind == PathKind::build;
  if (path.kind != PathKind::image && !build)
    return refuse("the first disk is " + disk.file + ", not the machine's");
  if (build != tid.is_build() || path.image != (build ? tid.target : tid.source))
    return refuse("disk " + disk.file + " does not belong to task " + tid.str());
  return check_mode(disk, keeps_overlay(tid.instance) ? "normal" : "multiattach");
}

/// An edited image's disk is the instance's own copy, named as the image's; a server's is its own for good.
Result<> check_database(const msg::Disk& disk, const DiskPath& path, const msg::Command& command,
                        const TaskId& tid) {
  const bool build = path.kind == PathKind::build_database;
  bool is_theirs = false;
  std::string_view mode = "normal";
  switch (kind_of(tid.instance)) {
    case InstanceKind::VS:
      is_theirs = path.kind == PathKind::instance_database && path.instance == tid.instance;
      mode = "writethrough";
      break;
    case InstanceKind::TMP:
      is_theirs = (build || path.kind == PathKind::image_database) && build == tid.is_build() &&
                  path.image == (build ? tid.target : tid.source);
      break;
    case InstanceKind::VD:
    case InstanceKind::TVD: break;
  }
  if (!is_theirs) return refuse("disk " + disk.file + " does not belong to task " + tid.str());
  if (!command.database)
    return fail(ErrorCode::invalid_argument, "a database disk without what it is made from", "database");
  if (command.database_grant.empty() || command.database_source_grant.empty())
    return fail(ErrorCode::invalid_argument, "a database disk without leave to open it", "database_grant");
  return check_mode(disk, mode);
}

}  // namespace

Result<std::vector<ExtraDisk>> extra_disks(const msg::Command& command, const TaskId& tid,
                                           const NodeLimits& limits) {
  std::vector<ExtraDisk> extra;
  const auto& disks = command.runtime_option->disks;
  bool has_data = false;
  for (std::size_t i = 0; i < disks.size(); ++i) {
    const auto& disk = disks[i];
    auto path = parse_disk_path(disk.file);
    if (!path) return fail(path.error());
    if (i == 0) {
      if (auto ok = check_machine(disk, *path, tid); !ok) return fail(ok.error());
      continue;
    }
    if (path->kind == PathKind::data) {
      if (auto ok = check_mode(disk, "multiattach"); !ok) return fail(ok.error());
      if (std::exchange(has_data, true)) return refuse("two scratch disks");
      if (limits.data_disk_bytes > 0) extra.push_back({.kind = ExtraDisk::Kind::data});
      continue;
    }
    if (path->kind == PathKind::image || path->kind == PathKind::build)
      return refuse("disk " + disk.file + " is a second machine");
    if (auto ok = check_database(disk, *path, command, tid); !ok) return fail(ok.error());
    // Never after another, so that its drive is d: whatever else this node has.
    if (i != 1) return refuse("the database disk is the second of the disks");
    extra.push_back({.kind = ExtraDisk::Kind::database});
  }
  const bool has = !extra.empty() && extra.front().kind == ExtraDisk::Kind::database;
  if (kind_of(tid.instance) == InstanceKind::VS && !has) return refuse("a server without its database disk");
  return extra;
}

bool has_database(const VmSpec& spec) {
  return std::any_of(spec.extra.begin(), spec.extra.end(),
                     [](const ExtraDisk& disk) { return disk.kind == ExtraDisk::Kind::database; });
}

std::string secret_uuid(const InstanceId& id) {
  const std::string& text = id.str();
  const auto kind = std::to_string(static_cast<int>(kind_of(id)));
  return "65640c10-0000-4000-8000-" + kind + "000" + text.substr(text.size() - 8);
}

}  // namespace educloud::nc
