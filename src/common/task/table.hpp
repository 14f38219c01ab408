#pragma once

#include <array>
#include <optional>
#include <span>

#include "common/task/state.hpp"

namespace educloud::task {

struct Transition {
  TaskState from;
  Event event;
  TaskState to;
  Action action;
};

/// Every transition there is. Whatever is not here is refused (a user's event: 409; a node's: counted and
/// dropped).
std::span<const Transition> table();

/// The row for `event` in `from`; none if the event is not allowed there. Pure.
std::optional<Transition> step(TaskState from, Event event);

/// Every state a task can be in, `gone` included.
std::span<const TaskState> states();

/// True while something is under way that must end by itself: clc keeps a deadline for these.
bool is_transient(TaskState state);

/// True while the task's VM may use memory and cpu on its node: placement counts these.
bool holds_capacity(TaskState state);

}  // namespace educloud::task
