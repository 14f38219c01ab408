#include "common/sys/pause.hpp"

#include <condition_variable>
#include <mutex>

namespace educloud::sys {

bool pause(std::chrono::milliseconds time, const std::stop_token& stop) {
  std::mutex mutex;
  std::condition_variable_any never;
  std::unique_lock lock(mutex);
  never.wait_for(lock, stop, time, [] { return false; });
  return !stop.stop_requested();
}

}  // namespace educloud::sys
