#include "clc/domain/vm_disks.hpp"

#include <algorithm>

namespace educloud::clc {
namespace {

constexpr std::string_view kScratch = "images/data";
constexpr std::string_view kSoftware = "space/software";

bool edits_image(const Task& task) {
  return task.kind == TaskKind::modify || task.kind == TaskKind::build;
}

/// One path component that is neither "." nor "..": what accounts are called, said again where it matters.
bool is_folder_name(std::string_view name) {
  if (name.empty() || name.size() > 32 || name[0] < 'a' || name[0] > 'z') return false;
  return std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
  });
}

std::string database_file(const Task& task) {
  switch (task.kind) {
    case TaskKind::build: return "space/database/tmp/images/" + task.dst + "/database";
    case TaskKind::modify: return "space/database/images/" + task.src + "/database";
    default: return "space/database/instances/" + task.insid + "/database";
  }
}

}  // namespace

bool outlives_its_task(std::string_view insid) {
  return insid.starts_with("VD") || insid.starts_with("VS");
}

bool has_database_disk(const Task& task, std::string_view usage) {
  if (task.kind == TaskKind::run) return task.insid.starts_with("VS");
  return edits_image(task) && usage == "server";
}

std::vector<msg::Disk> disks_of(const Task& task, std::string_view usage) {
  const bool keeps = edits_image(task);
  const std::string system = task.kind == TaskKind::build ? "tmp/images/" + task.dst + "/machine"
                                                          : "images/" + task.src + "/machine";
  std::vector<msg::Disk> out{{system, keeps ? "normal" : "multiattach"}};
  if (has_database_disk(task, usage)) out.push_back({database_file(task), keeps ? "normal" : "writethrough"});
  if (keeps) out.push_back({std::string(kScratch), "multiattach"});
  return out;
}

Result<std::vector<msg::Folder>> folders_of(const Task& task, std::string_view usage, const Account& owner) {
  std::vector<msg::Folder> out;
  if (edits_image(task)) {
    const int read_only = owner.admin ? 0 : 1;
    out.push_back({has_database_disk(task, usage) ? "f" : "e", std::string(kSoftware), read_only});
  } else if (has_database_disk(task, usage)) {
    out.push_back({"f", std::string(kSoftware), 1});
  } else {
    if (!is_folder_name(owner.name)) {
      return fail(ErrorCode::invalid_argument,
                  "the account '" + owner.name.substr(0, 40) +
                      "' can have no folder of its own: its name is not [a-z][a-z0-9._-]{0,31}",
                  "owner");
    }
    out.push_back({"d", "space/prv-data/" + owner.name, 0});
    out.push_back({"e", "space/pub-data", 0});
  }
  return out;
}

}  // namespace educloud::clc
