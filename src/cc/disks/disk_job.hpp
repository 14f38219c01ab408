#pragma once

#include <atomic>
#include <condition_variable>

#include "cc/disks/disk_store.hpp"

// Private to cc/disks.
namespace educloud::cc {

/// What is under way for one instance.
struct DiskStore::Job {
  std::string what;  ///< kind and everything that must be the same for a repetition
  std::stop_source stop;
  std::atomic<std::uint64_t> bytes_done{0}, bytes_total{0};
  std::string receipt;        ///< of a submit; read once it has ended
  bool is_taken_back = true;  ///< of a copy; as that

  std::mutex mutex;
  std::condition_variable ended;
  std::optional<Result<>> outcome;  // under mutex
};

}  // namespace educloud::cc
