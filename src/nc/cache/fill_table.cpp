#include "nc/cache/fill_table.hpp"

#include <algorithm>

#include "common/obs/log.hpp"

namespace educloud::nc {

FillTable::FillTable(const FillContext& context, std::function<void()> on_ended)
    : context_(context), on_ended_(std::move(on_ended)) {}

FillTable::~FillTable() {
  stop();
}

FillTable::Ticket::~Ticket() {
  table_.leave(key_, id_);
}

std::shared_ptr<FillJob> FillTable::Ticket::job() const {
  const std::lock_guard lock(table_.mutex_);
  return table_.by_ticket_.at(id_)->job;
}

std::optional<Result<>> FillTable::Ticket::wait(std::chrono::milliseconds time, std::stop_token stop) const {
  std::unique_lock lock(table_.mutex_);
  const auto& entry = *table_.by_ticket_.at(id_);
  table_.changed_.wait_for(lock, stop, time, [&] { return entry.outcome.has_value(); });
  return entry.outcome;
}

Result<std::unique_ptr<FillTable::Ticket>> FillTable::join(const FillRequest& request) {
  const VersionKey key{request.imgid, request.version};
  std::unique_lock lock(mutex_);
  if (stopped_) return fail(ErrorCode::cancelled, "the cache is stopping");
  auto& entry = current_[key];
  if (entry && entry->stop.stop_requested()) entry.reset();  // on its way out: its successor waits for it
  if (entry && entry->request.digest != request.digest) {
    return fail(ErrorCode::conflict, key.first + " version " + std::to_string(key.second) +
                                         " is being fetched with digest " + entry->request.digest.hex() +
                                         ", not " + request.digest.hex());
  }
  if (!entry) {
    entry = std::make_shared<Entry>();
    entry->id = next_id_++;
    entry->request = request;
  } else if (request.priority < entry->request.priority && !entry->job) {
    entry->request = request;
  }
  ++entry->tickets;
  const auto id = next_id_++;
  by_ticket_[id] = entry;
  schedule();
  return std::make_unique<Ticket>(*this, key, id);
}

void FillTable::schedule() {
  while (!stopped_ && running_ < std::max(1, context_.options.max_fills)) {
    EntryPtr best;
    for (const auto& [key, entry] : current_) {
      // Two fills of one version would write the same file: the stopped one ends first.
      const bool waits = std::any_of(ended_.begin(), ended_.end(), [&](const EntryPtr& other) {
        return !other->outcome && other->request.imgid == key.first && other->request.version == key.second;
      });
      if (entry->job || waits) continue;
      const auto rank = [](const Entry& one) { return std::pair(one.request.priority, one.id); };
      if (!best || rank(*entry) < rank(*best)) best = entry;
    }
    if (!best) return;
    best->job = std::make_shared<FillJob>(context_, best->request);
    ++running_;
    best->thread = std::jthread([this, best] { run(best); });
  }
}

void FillTable::run(const EntryPtr& entry) {
  Result<> outcome = fail(ErrorCode::internal, "the fill failed unexpectedly");
  try {
    outcome = entry->job->run(entry->stop.get_token());
  } catch (const std::exception& exception) {
    obs::error("cache.fill_threw", {{"image", entry->request.imgid}, {"what", exception.what()}});
  }
  {
    const std::lock_guard lock(mutex_);
    entry->outcome = std::move(outcome);
    --running_;
    const auto found = current_.find({entry->request.imgid, entry->request.version});
    if (found != current_.end() && found->second == entry) {
      current_.erase(found);
      ended_.push_back(entry);
    }
    schedule();
    changed_.notify_all();
  }
  on_ended_();
}

void FillTable::leave(const VersionKey& key, std::uint64_t id) {
  const std::lock_guard lock(mutex_);
  const auto entry = by_ticket_.extract(id).mapped();
  if (--entry->tickets > 0 || entry->outcome) return;
  const auto found = current_.find(key);
  if (found == current_.end() || found->second != entry) return;
  current_.erase(found);
  if (!entry->job) return;  // never began
  entry->stop.request_stop();
  ended_.push_back(entry);
}

std::shared_ptr<FillJob> FillTable::find(const VersionKey& key) const {
  const std::lock_guard lock(mutex_);
  const auto found = current_.find(key);
  return found == current_.end() ? nullptr : found->second->job;
}

bool FillTable::is_idle() const {
  const std::lock_guard lock(mutex_);
  return current_.empty();
}

void FillTable::reap() {
  std::vector<EntryPtr> gone;
  {
    const std::lock_guard lock(mutex_);
    const auto done =
        std::partition(ended_.begin(), ended_.end(), [](const EntryPtr& entry) { return !entry->outcome; });
    gone.assign(std::make_move_iterator(done), std::make_move_iterator(ended_.end()));
    ended_.erase(done, ended_.end());
  }
  for (auto& entry : gone) {
    if (entry->thread.joinable()) entry->thread.join();
    std::shared_ptr<FillJob> job;  // ends after the lock: it may still be telling the cc
    const std::lock_guard lock(mutex_);
    job.swap(entry->job);
  }
}

void FillTable::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    for (auto& [key, entry] : current_) {
      entry->stop.request_stop();
      if (!entry->job) entry->outcome = fail(ErrorCode::cancelled, "the cache is stopping");
    }
    changed_.notify_all();
  }
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return running_ == 0; });
  std::erase_if(current_, [](const auto& item) { return item.second->outcome.has_value(); });
  lock.unlock();
  reap();
}

}  // namespace educloud::nc
