#include "sim/bus/timeline.hpp"

#include <algorithm>

namespace educloud::sim {

void Timeline::plan(std::int64_t delay_ms, std::weak_ptr<const int> life, bool has_life,
                    std::function<void()> what) {
  heap_.push_back(
      {now_ms_ + std::max<std::int64_t>(0, delay_ms), ++order_, std::move(life), has_life, std::move(what)});
  std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
}

void Timeline::every(const Life& life, std::int64_t delay_ms, std::int64_t period_ms,
                     std::function<void()> what) {
  std::weak_ptr<const int> weak = life;
  after(life, delay_ms, [this, weak, period_ms, what = std::move(what)] {
    // Planned before it happens: what happens may end the life, and with it this.
    if (const auto alive = weak.lock()) every(alive, period_ms, period_ms, what);
    what();
  });
}

bool Timeline::step() {
  while (!heap_.empty()) {
    std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
    Event event = std::move(heap_.back());
    heap_.pop_back();
    now_ms_ = event.at_ms;
    if (event.has_life && event.life.expired()) continue;
    ++events_;
    event.what();
    return true;
  }
  return false;
}

void Timeline::note(std::string_view what) {
  const auto mix = [this](unsigned char byte) { digest_ = (digest_ ^ byte) * 0x100000001b3ULL; };
  for (const char c : what) mix(static_cast<unsigned char>(c));
  for (int shift = 0; shift < 64; shift += 8) mix(static_cast<unsigned char>(now_ms_ >> shift));
}

}  // namespace educloud::sim
