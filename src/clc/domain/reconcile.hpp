#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "clc/domain/types.hpp"
#include "common/msg/inventory.hpp"

/// What a node says it holds, against what we know: which of the two has to change. All pure.
namespace educloud::clc {

/// A complete round of a node's inventory.
struct Holdings {
  std::string host, cluster;
  std::int64_t lease_epoch = 0;  ///< of the last grant the node has seen
  std::vector<msg::InventoryVm> vms;
  std::vector<msg::InventoryTask> tasks;
};

/// What we know of it.
struct Knowledge {
  std::vector<Task> here;  ///< open tasks on that node
  /// For the tids of its VMs, and of its tasks that were not deleted: the open task, else the last that
  /// ended.
  std::map<std::string, Task> by_tid;
  std::set<std::string> let_go;  ///< of those: tids that let_go() names of the node we believe them on
};

/// One thing to mend.
struct Fix {
  enum class Kind {
    resend,    ///< the node lacks the task's command, or its answer was lost: the same command again
    adopt,     ///< the node is ahead of us (an older database was restored): go on from where it is. Also a
               ///< VM's node that we do not believe it on, when the one that we do has let it go
    stop,      ///< a VM runs whose task is stopped
    end,       ///< the VM of a running task is not there, and its node, asked, knows nothing of the task
    farewell,  ///< what the node has belongs to no task there any more
    orphan,    ///< a VM of a task, or of a later run, that we never knew: as farewell, but only when it stays
               ///< so
    stray,  ///< files of a task that we never knew, or a VM without a readable task: an operator's to judge
  };
  Kind kind = Kind::resend;
  std::string tid;
  std::string insid;
  std::string why;                      ///< for the log
  std::int64_t epoch = 0, attempt = 0;  ///< of a farewell: above everything the node has of it
  msg::InventoryTask told;              ///< of adopt
};
std::string_view to_string(Fix::Kind kind);

/// An inventory says nothing about a command sent, or a task changed, later than this before it came.
inline constexpr std::int64_t kUnsettledMs = 15'000;
/// How long an orphan must be seen until it is ended.
inline constexpr std::int64_t kOrphanMs = 60'000;

/// At most one fix per task. `now_ms`: wall clock, as in the tasks.
std::vector<Fix> reconcile(const Holdings& holdings, const Knowledge& knowledge, std::int64_t now_ms);

/// Tids whose VM should run on that node, which has neither it nor the task: what is of a later epoch
/// elsewhere is no second one. That another node alone says so is not enough: it may have been taken over.
std::set<std::string> let_go(const Holdings& holdings, const Knowledge& knowledge, std::int64_t now_ms);

/// Where a task stands when `op` has just been sent. Errors: invalid_argument (no node's command).
Result<task::TaskState> state_before(std::string_view op);

}  // namespace educloud::clc
