#pragma once

#include <string_view>

#include "clc/domain/types.hpp"
#include "common/base/result.hpp"

namespace educloud::clc {

/// What somebody may want to do. Every use case names one.
enum class Deed {
  see_status,
  see_nodes,
  change_nodes,
  plan,            ///< a dry run, which tells of the nodes
  see_vmtypes,     ///< and OS types
  change_vmtypes,  ///< and OS types
  see_image,
  create_image,
  change_image,  ///< modify, roll back, prune, delete, upload
  copy_image,    ///< build: a new image from it
  export_image,  ///< read all of its bytes
  push_image,    ///< to nodes, ahead of need
  see_vm,
  create_vm,
  control_vm,     ///< run, stop, delete, pause, snapshots, limits within its type's
  exceed_limits,  ///< more than its type allows
  see_secret,     ///< display password, console, screenshot
  see_task,
  control_task,
  force_task,  ///< end it without its node's answer
  see_dead_letters,
  settle_dead_letters,  ///< retry or drop them
  back_up,              ///< make and list copies of the database
};
std::string_view to_string(Deed deed);

/// True if `who` may do `deed` on an object of `owner` (empty: the object has none, or is not made yet).
/// Whatever is not allowed by the table is denied.
bool may(const Principal& who, Deed deed, std::string_view owner);

/// may(), as the Error to answer with: not_found where the caller may not even see the object.
Result<> check(const Principal& who, Deed deed, std::string_view owner, std::string_view object);

}  // namespace educloud::clc
