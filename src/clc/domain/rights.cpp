#include "clc/domain/rights.hpp"

#include <array>

namespace educloud::clc {
namespace {

enum class Who { admin, owner, anyone };

struct Row {
  Deed deed;
  Who least;   ///< who may at least; an admin always may
  bool hides;  ///< refused: say that there is no such object
  std::string_view name;
};

constexpr std::array kTable{
    Row{Deed::see_status, Who::anyone, false, "see the status"},
    Row{Deed::see_nodes, Who::admin, false, "see the nodes"},
    Row{Deed::change_nodes, Who::admin, false, "change the nodes"},
    Row{Deed::plan, Who::admin, false, "plan"},
    Row{Deed::see_vmtypes, Who::anyone, false, "see the VM types"},
    Row{Deed::change_vmtypes, Who::admin, false, "change the VM and OS types"},
    Row{Deed::see_image, Who::anyone, false, "see the image"},
    Row{Deed::create_image, Who::admin, false, "create images"},
    Row{Deed::change_image, Who::owner, false, "change the image"},
    Row{Deed::copy_image, Who::admin, false, "build images"},
    Row{Deed::export_image, Who::owner, false, "export the image"},
    Row{Deed::push_image, Who::admin, false, "push images to nodes"},
    Row{Deed::see_vm, Who::owner, true, "see the VM"},
    Row{Deed::create_vm, Who::anyone, false, "create VMs"},
    Row{Deed::control_vm, Who::owner, true, "control the VM"},
    Row{Deed::exceed_limits, Who::admin, false, "give a VM more than its type allows"},
    Row{Deed::see_secret, Who::owner, true, "see the VM's display"},
    Row{Deed::see_task, Who::owner, true, "see the task"},
    Row{Deed::control_task, Who::owner, true, "control the task"},
    Row{Deed::force_task, Who::admin, false, "force the end of the task"},
    Row{Deed::see_dead_letters, Who::admin, false, "see dead letters"},
    Row{Deed::settle_dead_letters, Who::admin, false, "retry or drop dead letters"},
    Row{Deed::back_up, Who::admin, false, "back up the cloud"},
};

const Row* find(Deed deed) {
  for (const auto& row : kTable) {
    if (row.deed == deed) return &row;
  }
  return nullptr;
}

}  // namespace

std::string_view to_string(Deed deed) {
  const auto* row = find(deed);
  return row ? row->name : "do this";
}

bool may(const Principal& who, Deed deed, std::string_view owner) {
  const auto* row = find(deed);
  if (!row || who.account.empty()) return false;
  if (who.admin) return true;
  switch (row->least) {
    case Who::admin: return false;
    case Who::owner: return !owner.empty() && owner == who.account;
    case Who::anyone: return true;
  }
  return false;
}

Result<> check(const Principal& who, Deed deed, std::string_view owner, std::string_view object) {
  if (may(who, deed, owner)) return {};
  const auto* row = find(deed);
  if (row && row->hides) return fail(ErrorCode::not_found, "there is no " + std::string(object));
  return fail(ErrorCode::permission_denied, who.account + " may not " + std::string(to_string(deed)) +
                                                (object.empty() ? "" : " (" + std::string(object) + ")") +
                                                ": ask its owner or an administrator");
}

}  // namespace educloud::clc
