#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "common/base/result.hpp"
#include "common/task/state.hpp"

namespace educloud::walrus {

/// Where an import is.
enum class Stage {
  waiting,  ///< for the user's first byte
  receiving,
  processing,  ///< inspecting, converting, hashing, publishing
  published,
  failed,
};

/// What a status to clc says beside the ids.
struct News {
  task::Event event = task::Event::uploading;
  task::TaskState at;
  bool final = false;
  int progress = 0;  ///< percent of the stage
  std::string prompt;
  std::uint64_t bytes_done = 0;
  std::uint64_t bytes_total = 0;
  std::string receipt;
  std::optional<Error> error;
};

/// Percent of `total`, 0 if that is unknown.
int percent(std::uint64_t done, std::uint64_t total);

/// An import on its way: waiting, receiving or processing.
News import_news(Stage stage, const std::string& prompt, std::uint64_t bytes_done, std::uint64_t bytes_total);
/// The end of an import (with receipt), or of an upkeep order (without).
News success_news(std::string prompt, std::string receipt = {});
/// The task goes back to waiting for a person.
News failure_news(Error error);
/// The answer to task/delete.
News deleted_news();

}  // namespace educloud::walrus
