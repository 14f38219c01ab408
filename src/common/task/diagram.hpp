#pragma once

#include <string>

namespace educloud::task {

/// The transition table as a page for docs/states.md: a mermaid stateDiagram-v2 and the table itself.
/// A test compares that file with this text, so the picture cannot lie.
std::string state_diagram();

}  // namespace educloud::task
