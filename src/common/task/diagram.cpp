#include "common/task/diagram.hpp"

#include <algorithm>
#include <vector>

#include "common/task/table.hpp"

namespace educloud::task {
namespace {

constexpr std::string_view kIntroduction =
    "# The life of a task\n"
    "\n"
    "Made from `src/common/task/table.cpp` by `EDUCLOUD_UPDATE_DOCS=1 bin/unit_task`; a test compares the "
    "two.\n"
    "\n"
    "An arrow is labelled with the event; behind the slash stands what clc does in the same transaction.\n"
    "Every state but `gone` also has an arrow `cancel`, and one for `timeout` and for `failed`; those that "
    "only\n"
    "lead back to the same state or to `deleting` are in the table below and left out of the picture.\n"
    "`fetched` is what clc makes of a node's `prepared` when the task is a push, which wants no VM.\n"
    "\n";

std::string name_of(TaskState state) {
  return std::string(to_string(state.phase)) + "/" + std::string(to_string(state.state));
}

/// An identifier mermaid accepts.
std::string node_of(TaskState state) {
  return std::string(to_string(state.phase)) + "_" + std::string(to_string(state.state));
}

std::string label_of(const Transition& row) {
  auto text = std::string(to_string(row.event));
  if (row.action != Action::none) text += " / " + std::string(to_string(row.action));
  return text;
}

bool worth_an_arrow(const Transition& row) {
  const bool loop = row.from == row.to;
  const bool common = row.event == Event::cancel || row.event == Event::timeout || row.event == Event::failed;
  return !loop && !(common && row.to.state == State::deleting);
}

}  // namespace

std::string state_diagram() {
  std::string text(kIntroduction);
  text += "```mermaid\nstateDiagram-v2\n";
  for (const auto& state : states()) text += "    " + node_of(state) + " : " + name_of(state) + "\n";
  text += "    [*] --> " + node_of(states().front()) + "\n";
  text += "    [*] --> " + node_of({Phase::submitting, State::init}) + " : an import\n";
  // Several events between the same two states share one arrow, in the table's order.
  std::vector<std::pair<std::string, std::string>> arrows;
  for (const auto& row : table()) {
    if (!worth_an_arrow(row)) continue;
    const auto ends = node_of(row.from) + " --> " + node_of(row.to);
    const auto known =
        std::find_if(arrows.begin(), arrows.end(), [&](const auto& one) { return one.first == ends; });
    if (known == arrows.end()) {
      arrows.emplace_back(ends, label_of(row));
    } else {
      known->second += ", " + label_of(row);
    }
  }
  for (const auto& [ends, label] : arrows) text += "    " + ends + " : " + label + "\n";
  for (const auto& state : states()) {
    if (state.state == State::gone) text += "    " + node_of(state) + " --> [*]\n";
  }
  text += "```\n\n| from | event | to | clc does |\n|---|---|---|---|\n";
  for (const auto& row : table()) {
    const auto action = row.action == Action::none ? std::string() : std::string(to_string(row.action));
    text += "| " + name_of(row.from) + " | " + std::string(to_string(row.event)) + " | " +
            (row.from == row.to ? "same" : name_of(row.to)) + " | " + action + " |\n";
  }
  return text;
}

}  // namespace educloud::task
