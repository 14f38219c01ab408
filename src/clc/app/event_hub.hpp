#pragma once

#include <cstdint>
#include <deque>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "clc/app/views.hpp"
#include "common/http/message.hpp"

namespace educloud::clc {

/// Live task events for SSE clients: event name "task", data = to_json(TaskView), id = a growing number.
/// Keeps the last `kReplay` events, so a client that comes back with Last-Event-ID misses nothing short.
class EventHub {
 public:
  static constexpr std::size_t kReplay = 1000;
  static constexpr std::size_t kSubscribers = 500;

  /// A stream of what `who` may see, of one task if `tid` is not empty. `last_event_id`: of the SSE
  /// header; events after it that are still kept come first. If it is unknown (older, or of another run
  /// of clc) an event "reset" comes first: read the list again.
  /// Errors: exhausted if there are too many subscribers.
  Result<std::shared_ptr<http::EventStream>> subscribe(const Principal& who, std::string_view tid,
                                                       std::string_view last_event_id);
  /// Call after the commit.
  void publish(const TaskView& task);
  void close();

 private:
  struct Event {
    std::uint64_t id;
    std::string owner, tid, data;
  };
  struct Subscriber {
    Principal who;
    std::string tid;
    std::shared_ptr<http::EventStream> stream;
  };
  static bool wants(const Subscriber& subscriber, const Event& event);
  std::string name_of(std::uint64_t id) const;

  std::mutex mutex_;
  std::uint64_t last_id_ = 0;
  std::string run_ = "";  ///< tells ids of this process from those of an earlier one
  std::deque<Event> kept_;
  std::list<Subscriber> subscribers_;
};

}  // namespace educloud::clc
