#include "cc/domain/fetch_queue.hpp"

#include <algorithm>

namespace educloud::cc {

void FetchQueue::enqueue(Flight& flight, const ChunkKey& key, std::int64_t run, int priority) {
  flight.run = run;
  flight.priority = priority;
  flight.taken = false;
  auto& line = runs(priority)[run];
  line.keys.push_back(key);
  ++line.live;
  ++waiting_[static_cast<std::size_t>(priority)];
}

void FetchQueue::unqueue(Flight& flight) {
  if (flight.taken) return;
  --waiting_[static_cast<std::size_t>(flight.priority)];
  auto& line = runs(flight.priority);
  const auto it = line.find(flight.run);
  if (it != line.end() && --it->second.live == 0) line.erase(it);
}

void FetchQueue::want(Reader reader, int priority, const VersionKey& version,
                      std::span<const Wanted> wanted) {
  const std::int64_t run = ++last_run_;
  auto& keys = readers_[reader];
  keys.reserve(keys.size() + wanted.size());
  auto& mine = runs(priority)[run];
  mine.version = version;
  mine.next_most = first_batch_;
  for (const auto& [key, index] : wanted) {
    keys.push_back(key);
    const auto [it, is_new] = flights_.try_emplace(key);
    auto& flight = it->second;
    if (is_new) {
      flight.first = {reader, index};
      enqueue(flight, key, run, priority);
      continue;
    }
    if (flight.wanted) {
      flight.more.push_back({reader, index});
    } else {
      flight.first = {reader, index};
      flight.wanted = true;
    }
    if (priority >= flight.priority) continue;
    if (flight.taken) {
      flight.priority = priority;  // counts if it is put back
      continue;
    }
    unqueue(flight);
    enqueue(flight, key, run, priority);
  }
  if (mine.live == 0) runs(priority).erase(run);
}

std::optional<FetchQueue::Batch> FetchQueue::take(std::size_t max, int worst) {
  for (int priority = 0; priority <= std::min(worst, kPriorities - 1); ++priority) {
    auto& line = runs(priority);
    if (line.empty()) continue;
    // The oldest of those that are served least now: several readers get their streams side by side.
    auto best = line.begin();
    for (auto it = line.begin(); it != line.end() && best->second.in_flight > 0; ++it) {
      if (it->second.in_flight < best->second.in_flight) best = it;
    }
    auto& [id, run] = *best;
    Batch batch{priority, id, run.version, {}};
    const std::size_t most = std::min(run.next_most, max);
    run.next_most = max;
    batch.keys.reserve(std::min(most, run.live));
    while (batch.keys.size() < most && run.live > 0) {
      const ChunkKey key = run.keys.front();
      run.keys.pop_front();
      const auto flight = flights_.find(key);
      if (flight == flights_.end() || flight->second.taken || flight->second.run != id) continue;
      flight->second.taken = true;
      --run.live;
      --waiting_[static_cast<std::size_t>(priority)];
      batch.keys.push_back(key);
    }
    ++run.in_flight;
    if (run.live == 0) line.erase(best);
    return batch;
  }
  return std::nullopt;
}

std::vector<FetchQueue::Want> FetchQueue::arrived(const ChunkKey& key) {
  std::vector<Want> out;
  const auto it = flights_.find(key);
  if (it == flights_.end()) return out;
  auto& flight = it->second;
  unqueue(flight);
  out = std::move(flight.more);
  if (flight.wanted) out.push_back(flight.first);
  flights_.erase(it);
  return out;
}

void FetchQueue::put_back(const Batch& batch, std::span<const ChunkKey> keys) {
  const std::int64_t run = --first_run_;
  for (const auto& key : keys) {
    const auto it = flights_.find(key);
    if (it == flights_.end()) continue;
    if (!it->second.wanted) {
      flights_.erase(it);
      continue;
    }
    const int priority = it->second.priority;
    enqueue(it->second, key, run, priority);
    runs(priority)[run].version = batch.version;
    runs(priority)[run].next_most = std::max<std::size_t>(1, batch.keys.size() / 2);
  }
}

void FetchQueue::done(const Batch& batch) {
  auto& line = runs(batch.priority);
  const auto it = line.find(batch.run);
  if (it != line.end() && it->second.in_flight > 0) --it->second.in_flight;
}

void FetchQueue::forget_want(Flight& flight, Reader reader) {
  std::erase_if(flight.more, [&](const Want& want) { return want.reader == reader; });
  if (!flight.wanted || flight.first.reader != reader) return;
  flight.wanted = !flight.more.empty();
  if (!flight.wanted) return;
  flight.first = flight.more.back();
  flight.more.pop_back();
}

void FetchQueue::drop(Reader reader) {
  const auto of_reader = readers_.find(reader);
  if (of_reader == readers_.end()) return;
  for (const auto& key : of_reader->second) {
    const auto it = flights_.find(key);
    if (it == flights_.end()) continue;
    forget_want(it->second, reader);
    // What is under way is awaited: it lands in the store, and the next one to ask finds it.
    if (it->second.wanted || it->second.taken) continue;
    unqueue(it->second);
    flights_.erase(it);
  }
  readers_.erase(of_reader);
}

std::vector<FetchQueue::Reader> FetchQueue::readers_of(std::span<const ChunkKey> keys) const {
  std::vector<Reader> out;
  for (const auto& key : keys) {
    const auto it = flights_.find(key);
    if (it == flights_.end()) continue;
    if (it->second.wanted) out.push_back(it->second.first.reader);
    for (const auto& want : it->second.more) out.push_back(want.reader);
  }
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

}  // namespace educloud::cc
