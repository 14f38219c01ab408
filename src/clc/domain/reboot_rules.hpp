#pragma once

#include <string>
#include <vector>

#include "clc/domain/types.hpp"

/// What becomes of a node's tasks when its host was restarted: whatever ran on it does not run any more.
namespace educloud::clc {

enum class RebootPlan {
  nothing,  ///< no VM of it ran, or its node goes on with its present command by itself
  start,    ///< it starts again
  stop,     ///< it is stopped, and its owner is told why
};
/// Of an open task on that node. `autostart`: of its instance.
RebootPlan reboot_plan(const Task& task, bool autostart);

/// A VM that is to start again.
struct Restart {
  std::int64_t row = 0;  ///< of its task
  bool is_server = false;
  std::int64_t created_at = 0;  ///< of the instance
};
/// Servers first, since desktops may need them; then the oldest first.
void order_restarts(std::vector<Restart>& restarts);

/// What the owner reads whose VM does not start again.
std::string reboot_text(const Task& task);

}  // namespace educloud::clc
