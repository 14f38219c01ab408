#include "nc/cache/work_queue.hpp"

#include <algorithm>
#include <bit>

#include "nc/cache/peer_set.hpp"

namespace educloud::nc {
namespace {

using std::chrono::milliseconds;

constexpr std::size_t kMaxUrgent = 4096;
/// A reader waits for a few chunks, not for a whole group.
constexpr std::size_t kUrgentChunks = 16;
/// A neighbour that gave nothing for so long is helped out; what it was asked for is fetched a second time a
/// little later. It may wait for the cc itself, which is no reason to burden that twice.
constexpr std::int64_t kQuietMs = 2000;
constexpr std::int64_t kStuckMs = 3000;
/// Work that would take a neighbour longer than this, and than half of the time so far, is taken over.
constexpr double kDrainSeconds = 3.0;
constexpr double kDrainShare = 0.5;

double seconds(WorkQueue::Clock::duration time) {
  return std::chrono::duration<double>(time).count();
}

}  // namespace

WorkQueue::WorkQueue(std::uint32_t groups, std::string self)
    : self_(std::move(self)),
      needed_(groups, 0),
      claimed_(groups, 0),
      queued_(groups, false),
      nodes_{self_} {}

WorkQueue::Source& WorkQueue::source_of(const std::string& name, Time now) {
  const auto [found, is_new] = sources_.try_emplace(name);
  if (is_new) {
    found->second.since = found->second.not_before = now;
    found->second.pulse->beat(now);
  }
  return found->second;
}

void WorkQueue::enqueue(std::uint32_t group, bool front, Time now) {
  if (queued_[group] || open_bits(group) == 0) return;
  queued_[group] = true;
  const auto& home = home_of(nodes_, group);
  auto& groups = source_of(home == self_ ? kCc : home, now).groups;
  front ? groups.push_front(group) : groups.push_back(group);
}

void WorkQueue::need(const std::vector<std::uint64_t>& chunks, Time now) {
  const std::lock_guard lock(mutex_);
  for (const auto at : chunks) {
    if (has_bit(needed_, at)) continue;
    set_bit(needed_, at);
    ++left_;
    enqueue(static_cast<std::uint32_t>(at / chunk::kGroupChunks), false, now);
  }
}

void WorkQueue::set_peers(std::vector<std::string> peers, Time now) {
  const std::lock_guard lock(mutex_);
  nodes_ = std::move(peers);
  nodes_.push_back(self_);
  for (auto source = sources_.begin(); source != sources_.end();) {
    source->second.groups.clear();
    const bool gone = source->first != kCc && source->second.active == 0 &&
                      std::find(nodes_.begin(), nodes_.end(), source->first) == nodes_.end();
    source = gone ? sources_.erase(source) : std::next(source);
  }
  std::fill(queued_.begin(), queued_.end(), false);
  for (std::uint32_t group = 0; group < needed_.size(); ++group) enqueue(group, false, now);
}

bool WorkQueue::is_home(std::uint64_t chunk) const {
  const std::lock_guard lock(mutex_);
  return home_of(nodes_, static_cast<std::uint32_t>(chunk / chunk::kGroupChunks)) == self_;
}

void WorkQueue::claim_group(std::uint32_t group, Unit& unit) {
  for (auto bits = open_bits(group); bits != 0; bits &= bits - 1) {
    unit.chunks.push_back(std::uint64_t{group} * chunk::kGroupChunks +
                          static_cast<unsigned>(std::countr_zero(bits)));
  }
  claimed_[group] |= needed_[group];
}

WorkQueue::Unit WorkQueue::begin(Unit unit, Time now) {
  auto& source = source_of(unit.source, now);
  ++source.active;
  unit.id = next_id_++;
  unit.pulse = std::make_shared<Pulse>();
  unit.source_pulse = source.pulse;
  unit.pulse->beat(now);
  flights_.push_back({unit, false});
  return unit;
}

std::optional<WorkQueue::Unit> WorkQueue::take(const std::string& name, std::size_t max_chunks, Time now) {
  const std::lock_guard lock(mutex_);
  const auto found = sources_.find(name);
  if (found == sources_.end() || now < found->second.not_before) return std::nullopt;
  auto& groups = found->second.groups;
  const auto max_groups = std::clamp<std::size_t>(groups.size() / 8, 1, 64);
  Unit unit;
  unit.source = name;
  for (std::size_t taken = 0; !groups.empty() && taken < max_groups;) {
    const auto group = groups.front();
    const auto more = static_cast<std::size_t>(std::popcount(open_bits(group)));
    if (!unit.chunks.empty() && unit.chunks.size() + more > max_chunks) break;
    groups.pop_front();
    queued_[group] = false;
    if (more == 0) continue;  // somebody else had it meanwhile
    claim_group(group, unit);
    ++taken;
  }
  if (unit.chunks.empty()) return std::nullopt;
  return begin(std::move(unit), now);
}

std::optional<WorkQueue::Unit> WorkQueue::take_urgent(Time now) {
  const std::lock_guard lock(mutex_);
  while (!urgent_.empty()) {
    const auto [chunk, again] = urgent_.front();
    urgent_.pop_front();
    if (!has_bit(needed_, chunk) || (has_bit(claimed_, chunk) && !again)) continue;
    Unit unit;
    const auto end = (chunk / chunk::kGroupChunks + 1) * chunk::kGroupChunks;
    for (auto at = chunk; at < end && unit.chunks.size() < kUrgentChunks; ++at) {
      if (!has_bit(needed_, at) || (has_bit(claimed_, at) && at != chunk)) continue;
      set_bit(claimed_, at);
      unit.chunks.push_back(at);
    }
    return begin(std::move(unit), now);
  }
  return std::nullopt;
}

bool WorkQueue::is_slow(const Source& source, Time now) const {
  if (Pulse::to_ms(now) - source.pulse->at_ms.load(std::memory_order_relaxed) > kQuietMs) return true;
  const auto elapsed = seconds(now - source.since);
  if (elapsed < kDrainSeconds) return false;
  std::uint64_t left = 0;
  for (const auto group : source.groups) left += static_cast<unsigned>(std::popcount(open_bits(group)));
  const auto came = std::max<std::uint64_t>(source.pulse->chunks.load(std::memory_order_relaxed), 1);
  const auto drain = static_cast<double>(left) * elapsed / static_cast<double>(came);
  return drain > kDrainSeconds && drain > kDrainShare * elapsed;
}

std::optional<WorkQueue::Unit> WorkQueue::steal_queued(Time now) {
  for (auto& [name, source] : sources_) {
    if (name == kCc || source.groups.empty() || !is_slow(source, now)) continue;
    while (!source.groups.empty()) {
      // From the end: the neighbour is at work on the front.
      const auto group = source.groups.back();
      source.groups.pop_back();
      queued_[group] = false;
      Unit unit;
      claim_group(group, unit);
      if (!unit.chunks.empty()) return begin(std::move(unit), now);
    }
  }
  return std::nullopt;
}

std::optional<WorkQueue::Unit> WorkQueue::steal_flying(Time now) {
  for (auto& flight : flights_) {
    if (flight.doubled || Pulse::to_ms(now) - flight.unit.pulse->at_ms.load() < kStuckMs) continue;
    Unit unit;
    for (const auto at : flight.unit.chunks) {
      if (has_bit(needed_, at)) unit.chunks.push_back(at);
    }
    flight.doubled = true;
    if (unit.chunks.empty()) continue;
    unit = begin(std::move(unit), now);
    flights_.back().doubled = true;  // not a third time
    return unit;
  }
  return std::nullopt;
}

std::optional<WorkQueue::Unit> WorkQueue::steal(Time now) {
  const std::lock_guard lock(mutex_);
  auto unit = steal_queued(now);
  return unit ? unit : steal_flying(now);
}

std::optional<std::string> WorkQueue::busiest_peer(int max_active, Time now) const {
  const std::lock_guard lock(mutex_);
  const Source* best = nullptr;
  const std::string* name = nullptr;
  for (const auto& [candidate, source] : sources_) {
    if (candidate == kCc || source.groups.empty() || source.active >= max_active || now < source.not_before)
      continue;
    if (best != nullptr &&
        std::pair(-source.active, source.groups.size()) <= std::pair(-best->active, best->groups.size())) {
      continue;
    }
    best = &source;
    name = &candidate;
  }
  if (name == nullptr) return std::nullopt;
  return *name;
}

void WorkQueue::pause(const std::string& source, Time until) {
  const std::lock_guard lock(mutex_);
  const auto found = sources_.find(source);
  if (found != sources_.end()) found->second.not_before = until;
}

void WorkQueue::written(const std::vector<std::uint64_t>& chunks) {
  const std::lock_guard lock(mutex_);
  for (const auto at : chunks) {
    if (!has_bit(needed_, at)) continue;
    needed_[at / 64] &= ~(std::uint64_t{1} << (at % 64));
    --left_;
  }
}

void WorkQueue::close(const Unit& unit, Time now) {
  const std::lock_guard lock(mutex_);
  flights_.remove_if([&](const Flight& flight) { return flight.unit.id == unit.id; });
  auto& source = source_of(unit.source, now);
  --source.active;
  for (const auto at : unit.chunks) {
    // The other one who fetches it may still bring it; it is no harm to offer it again.
    if (has_bit(needed_, at)) claimed_[at / 64] &= ~(std::uint64_t{1} << (at % 64));
  }
  std::uint32_t last = ~0U;
  for (const auto at : unit.chunks) {
    const auto group = static_cast<std::uint32_t>(at / chunk::kGroupChunks);
    if (group != last) enqueue(group, true, now);
    last = group;
  }
}

void WorkQueue::urge(std::uint64_t chunk, bool again) {
  const std::lock_guard lock(mutex_);
  if (!has_bit(needed_, chunk) || (has_bit(claimed_, chunk) && !again)) return;
  const bool there =
      std::any_of(urgent_.begin(), urgent_.end(), [&](const auto& u) { return u.first == chunk; });
  if (!there && urgent_.size() < kMaxUrgent) urgent_.emplace_back(chunk, again);
}

void WorkQueue::to_front(std::uint64_t chunk) {
  const std::lock_guard lock(mutex_);
  const auto group = static_cast<std::uint32_t>(chunk / chunk::kGroupChunks);
  const auto cc = sources_.find(kCc);
  if (cc == sources_.end() || !queued_[group]) return;
  auto& groups = cc->second.groups;
  const auto found = std::find(groups.begin(), groups.end(), group);
  if (found == groups.end() || found == groups.begin()) return;
  groups.erase(found);
  groups.push_front(group);
}

std::uint64_t WorkQueue::left() const {
  const std::lock_guard lock(mutex_);
  return left_;
}

bool WorkQueue::has_urgent() const {
  const std::lock_guard lock(mutex_);
  return !urgent_.empty();
}

}  // namespace educloud::nc
