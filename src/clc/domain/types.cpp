#include "clc/domain/types.hpp"

#include <array>

namespace educloud::clc {
namespace {

constexpr std::array<std::pair<TaskKind, std::string_view>, 8> kKinds{{{TaskKind::import, "import"},
                                                                       {TaskKind::modify, "modify"},
                                                                       {TaskKind::build, "build"},
                                                                       {TaskKind::run, "run"},
                                                                       {TaskKind::push, "push"},
                                                                       {TaskKind::use, "use"},
                                                                       {TaskKind::prune, "prune"},
                                                                       {TaskKind::remove, "remove"}}};

constexpr std::array<std::pair<NodeState, std::string_view>, 3> kNodeStates{
    {{NodeState::enabled, "enabled"}, {NodeState::no_new, "no_new"}, {NodeState::drained, "drained"}}};

}  // namespace

std::string_view to_string(NodeState state) {
  for (const auto& [one, name] : kNodeStates) {
    if (one == state) return name;
  }
  return "enabled";
}

Result<NodeState> parse_node_state(std::string_view text) {
  for (const auto& [one, name] : kNodeStates) {
    if (name == text) return one;
  }
  return fail(ErrorCode::invalid_argument,
              "node state '" + std::string(text) + "' is none of enabled, no_new, drained", "state");
}

std::string_view to_string(TaskKind kind) {
  for (const auto& [one, name] : kKinds) {
    if (one == kind) return name;
  }
  return "run";
}

TaskKind task_kind(std::string_view text) {
  for (const auto& [one, name] : kKinds) {
    if (name == text) return one;
  }
  return TaskKind::run;
}

bool is_maintenance(TaskKind kind) {
  return kind == TaskKind::use || kind == TaskKind::prune || kind == TaskKind::remove;
}

bool is_walrus_task(TaskKind kind) {
  return kind == TaskKind::import || is_maintenance(kind);
}

}  // namespace educloud::clc
