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

}  // namespace

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
