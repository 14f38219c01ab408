#include "common/http/event_stream.hpp"

namespace educloud::http {
namespace {

/// A field of one line: whatever could start another line is dropped.
void append_line(std::string& out, std::string_view field, std::string_view value) {
  out += field;
  out += ": ";
  for (const char c : value) {
    if (c != '\r' && c != '\n' && c != '\0') out += c;
  }
  out += '\n';
}

std::string format_event(std::string_view event, std::string_view data, std::string_view id) {
  std::string out;
  out.reserve(event.size() + data.size() + id.size() + 32);
  if (!id.empty()) append_line(out, "id", id);
  if (!event.empty()) append_line(out, "event", event);
  std::size_t begin = 0;
  while (begin <= data.size()) {
    const std::size_t end = std::min(data.find('\n', begin), data.size());
    append_line(out, "data", data.substr(begin, end - begin));
    begin = end + 1;
  }
  out += '\n';
  return out;
}

}  // namespace

std::string EventStream::Impl::take(std::size_t max_bytes) {
  std::lock_guard lock(mutex);
  std::string out;
  while (!queue.empty() && out.size() < max_bytes) {
    queued_bytes -= queue.front().size();
    out += queue.front();
    queue.pop_front();
  }
  return out;
}

void EventStream::Impl::detach() {
  std::lock_guard lock(mutex);
  closed = true;
  queue.clear();
  queued_bytes = 0;
  wake = nullptr;
}

EventStream::EventStream() : impl_(std::make_shared<Impl>()) {}

EventStream::~EventStream() {
  close();
}

bool EventStream::push(std::string_view event, std::string_view data, std::string_view id) {
  std::string text = format_event(event, data, id);
  std::lock_guard lock(impl_->mutex);
  if (impl_->closed) return false;
  if (impl_->queue.size() >= kMaxQueued || impl_->queued_bytes + text.size() > Impl::kMaxQueuedBytes) {
    impl_->overflowed = true;
    impl_->closed = true;
    impl_->queue.clear();
    impl_->queued_bytes = 0;
    if (impl_->wake) impl_->wake();
    return false;
  }
  impl_->queued_bytes += text.size();
  impl_->queue.push_back(std::move(text));
  // One wake-up is enough until the connection has taken everything.
  if (impl_->queue.size() == 1 && impl_->wake) impl_->wake();
  return true;
}

void EventStream::close() {
  std::lock_guard lock(impl_->mutex);
  if (impl_->closed) return;
  impl_->closed = true;
  if (impl_->wake) impl_->wake();
}

bool EventStream::is_open() const {
  std::lock_guard lock(impl_->mutex);
  return !impl_->closed;
}

}  // namespace educloud::http
