#include "cc/relay/upstream.hpp"

#include <algorithm>

namespace educloud::cc {

std::vector<Mailbox::Item> Mailbox::take() {
  const std::lock_guard lock(mutex_);
  return std::exchange(items_, {});
}

Result<std::vector<Mailbox::Item>> Mailbox::wait_for(std::uint32_t index,
                                                     std::chrono::steady_clock::time_point deadline,
                                                     const std::stop_token& stop) {
  const auto is_awaited = [&](const Item& item) { return item.first == index; };
  std::unique_lock lock(mutex_);
  awaited_ = index;
  awaited_is_there_ = std::any_of(items_.begin(), items_.end(), is_awaited);
  filled_.wait_until(lock, stop, deadline, [&] { return awaited_is_there_ || closed_; });
  awaited_.reset();
  if (awaited_is_there_) return std::exchange(items_, {});
  if (closed_) return fail(ErrorCode::unavailable, "this relay is stopping; try again");
  if (stop.stop_requested()) return fail(ErrorCode::cancelled, "nobody waits for this chunk any more");
  if (trouble_) return fail(*trouble_, "walrus");
  return fail(ErrorCode::timeout, "walrus sent nothing for too long");
}

void Mailbox::put(std::vector<Item> items) {
  bool wakes = false;
  {
    const std::lock_guard lock(mutex_);
    for (auto& item : items) {
      if (awaited_ == item.first) wakes = awaited_is_there_ = true;
      items_.push_back(std::move(item));
    }
    trouble_.reset();
  }
  if (wakes) filled_.notify_one();
}

void Mailbox::note_trouble(const Error& error) {
  const std::lock_guard lock(mutex_);
  trouble_ = error;
}

void Mailbox::close() {
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
  }
  filled_.notify_all();
}

}  // namespace educloud::cc
