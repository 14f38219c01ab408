#pragma once

#include <deque>
#include <functional>
#include <mutex>
#include <string>

#include "common/http/message.hpp"

namespace educloud::http {

/// What the handler's side and the connection's side share; every member under `mutex`.
struct EventStream::Impl {
  static constexpr std::size_t kMaxQueuedBytes = 4u << 20;

  std::mutex mutex;
  std::deque<std::string> queue;  ///< events ready for the wire
  std::size_t queued_bytes = 0;
  bool closed = false;      ///< nothing more is pushed; what is queued still goes out
  bool overflowed = false;  ///< the client is too slow: cut it
  /// Called (under `mutex`) after something changed; must not block. Empty while no connection listens.
  std::function<void()> wake;

  /// Takes at most about `max_bytes` of queued events.
  std::string take(std::size_t max_bytes);
  /// Ends the stream from the connection's side.
  void detach();
};

}  // namespace educloud::http
