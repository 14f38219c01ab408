#include "clc/app/event_hub.hpp"

#include <charconv>

#include "clc/domain/rights.hpp"
#include "common/base/random.hpp"

namespace educloud::clc {

bool EventHub::wants(const Subscriber& subscriber, const Event& event) {
  if (!subscriber.tid.empty() && subscriber.tid != event.tid) return false;
  return may(subscriber.who, Deed::see_task, event.owner);
}

std::string EventHub::name_of(std::uint64_t id) const {
  return run_ + "-" + std::to_string(id);
}

Result<std::shared_ptr<http::EventStream>> EventHub::subscribe(const Principal& who, std::string_view tid,
                                                               std::string_view last_event_id) {
  const std::scoped_lock guard(mutex_);
  if (run_.empty()) run_ = random_hex(4);
  subscribers_.remove_if([](const Subscriber& one) { return !one.stream->is_open(); });
  if (subscribers_.size() >= kSubscribers)
    return fail(ErrorCode::exhausted, "too many watchers: try again later");
  Subscriber subscriber{who, std::string(tid), std::make_shared<http::EventStream>()};
  if (!last_event_id.empty()) {
    std::uint64_t seen = 0;
    const std::string_view prefix = last_event_id.substr(0, std::min(last_event_id.size(), run_.size() + 1));
    const auto digits = last_event_id.substr(prefix.size());
    const auto [at, error] = std::from_chars(digits.data(), digits.data() + digits.size(), seen);
    const bool ours = prefix == run_ + "-" && error == std::errc() && at == digits.data() + digits.size();
    const std::uint64_t oldest = kept_.empty() ? last_id_ + 1 : kept_.front().id;
    if (!ours || seen > last_id_ || seen + 1 < oldest) subscriber.stream->push("reset", "{}");
    for (const auto& event : kept_) {
      const bool missed = ours && event.id > seen;
      if (missed && wants(subscriber, event)) subscriber.stream->push("task", event.data, name_of(event.id));
    }
  }
  subscribers_.push_back(subscriber);
  return subscriber.stream;
}

void EventHub::publish(const TaskView& task) {
  const std::scoped_lock guard(mutex_);
  if (run_.empty()) run_ = random_hex(4);
  kept_.push_back({++last_id_, task.task.owner, task.task.tid,
                   to_json(task).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)});
  if (kept_.size() > kReplay) kept_.pop_front();
  const auto& event = kept_.back();
  for (auto at = subscribers_.begin(); at != subscribers_.end();) {
    const bool alive = !wants(*at, event) || at->stream->push("task", event.data, name_of(event.id));
    at = alive ? std::next(at) : subscribers_.erase(at);
  }
}

void EventHub::close() {
  const std::scoped_lock guard(mutex_);
  for (auto& one : subscribers_) one.stream->close();
  subscribers_.clear();
}

}  // namespace educloud::clc
