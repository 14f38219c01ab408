#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.hpp"
#include "common/msg/command.hpp"

namespace educloud::walrus {

/// What walrus can be told to do.
enum class Operation {
  import,  ///< expect a user's upload as target_imgid, target_version
  blank,   ///< make target_version of target_imgid: a new disk for data
  use,     ///< images/<target_imgid>/machine points to target_version
  prune,   ///< remove `versions` of target_imgid
  remove,  ///< remove target_imgid with all its versions
  forget,  ///< the task is over or given up: drop what was uploaded for it
};
std::string_view to_string(Operation operation);

/// A command whose every part that is used has been checked.
struct Order {
  Operation operation = Operation::forget;
  std::string tid, cmdid;
  std::string imgid;            ///< target; of a `forget`: the task's own
  int version = 0;              ///< import, blank, use
  std::vector<int> versions;    ///< prune
  std::int64_t disk_bytes = 0;  ///< blank
};

/// True if tid and cmdid are well-formed, so that an answer can be given at all.
Result<> check_addressable(const msg::Command& command);
/// Errors: invalid_argument naming the key.
Result<Order> check_command(const msg::Command& command);

/// May these versions go? All or none. Errors: conflict naming the version in use.
Result<> check_prune(const Order& order, std::optional<int> current);

/// An upload that somebody wants to begin, and what is known about its place.
struct Request {
  std::string imgid;
  int version = 0;
  bool by_user = false;  ///< else by a host
  std::string cmdid;
};
struct Place {
  std::optional<std::string> expected_cmdid;    ///< of the import that waits for a user's upload
  std::optional<std::string> published_digest;  ///< of the version, if it is published
  bool is_over = false;  ///< an import of it was begun here before and does not wait any more
};
/// The cmdid the upload belongs to. Errors: unavailable (the command of the import has not come yet: the
/// grant went to the user at once, the command goes through the broker), conflict (nobody waits for it any
/// more; the number is taken), permission_denied (hosts submit chunks, not files).
Result<std::string> admit(const Request& request, const Place& place);

}  // namespace educloud::walrus
