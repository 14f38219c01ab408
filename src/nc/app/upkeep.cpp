#include "nc/app/upkeep.hpp"

#include "common/obs/log.hpp"

namespace educloud::nc {

void Upkeep::start() {
  thread_ = std::jthread([this](std::stop_token stop) {
    while (!stop.stop_requested()) {
      for (const auto& part : parts_) {
        try {
          part();
        } catch (const std::exception& e) {
          obs::error("upkeep.exception", {{"what", e.what()}});
        }
      }
      std::unique_lock lock(mutex_);
      changed_.wait_for(lock, stop, std::chrono::seconds{1}, [&] { return woken_; });
      woken_ = false;
    }
  });
}

void Upkeep::stop() {
  if (!thread_.joinable()) return;
  thread_.request_stop();
  thread_.join();
}

void Upkeep::wake() {
  {
    const std::lock_guard lock(mutex_);
    woken_ = true;
  }
  changed_.notify_all();
}

}  // namespace educloud::nc
