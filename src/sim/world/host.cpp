#include "sim/world/host.hpp"

namespace educloud::sim {

void Host::start() {
  if (is_up()) return;
  life_ = new_life();
  world_.tell(name_ + " starts");
  run([this] {
    if (auto ok = boot(); !ok) world_.defect(name_ + " did not start: " + ok.error().message);
  });
}

void Host::crash() {
  if (!is_up()) return;
  life_.reset();
  paused_until_ = 0;
  world_.tell(name_ + " is killed");
  world_.timeline.note(name_);
  wreck();
  on_crash();
}

void Host::pause(std::int64_t for_ms) {
  if (!is_up()) return;
  paused_until_ = std::max(paused_until_, world_.timeline.now_ms() + for_ms);
}

void Host::crash_point() {
  if (depth_ > 0 && is_up() && crash_chance > 0 && rng_.chance(crash_chance)) throw Crash{};
}

void Host::run(const std::function<void()>& what) {
  if (!is_up()) return;
  if (is_paused() && depth_ == 0) {
    const auto left_ms = paused_until_ - world_.timeline.now_ms();
    return world_.timeline.after(life_, left_ms, [this, what] { run(what); });
  }
  // Inside of what it does already: a crash unwinds all of it.
  if (depth_ > 0) return what();
  bool killed = false;
  ++depth_;
  try {
    what();
  } catch (const Crash&) {
    killed = true;
  } catch (const std::exception& error) {
    world_.defect(name_ + " let an exception escape: " + error.what());
  }
  --depth_;
  if (killed) crash();
}

void Host::every(std::int64_t period_ms, std::function<void()> what) {
  world_.timeline.every(life_, rng_.between(1, period_ms), period_ms, [this, what = std::move(what)] {
    if (!is_paused()) run(what);
  });
}

}  // namespace educloud::sim
