#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace educloud::transfer {

/// How far a transfer is.
struct Progress {
  std::string prompt;  ///< what is being done, for a person: "downloading", "waiting for the relay"
  std::uint64_t bytes_done = 0;
  std::uint64_t bytes_total = 0;  ///< 0: not known
};
/// Called on the worker's thread at most once a second, and once at the end of a stage.
using OnProgress = std::function<void(const Progress&)>;

}  // namespace educloud::transfer
