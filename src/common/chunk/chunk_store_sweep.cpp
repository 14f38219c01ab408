// What takes chunks away: eviction of whole packs (caches) and the sweep.
#include <unistd.h>

#include <cerrno>

#include "common/base/clock.hpp"
#include "common/chunk/chunk_store_local.hpp"
#include "common/obs/log.hpp"

namespace educloud::chunk {
namespace {

constexpr std::size_t kSweepRows = 4096;
/// Gaps that sum up to less than this in one pack are left alone.
constexpr std::uint64_t kWorthPunching = 64 * 1024;

}  // namespace

Result<> LocalStore::make_room(std::uint64_t bytes) {
  if (options_.max_bytes == 0) return {};
  for (;;) {
    std::unique_lock state(state_);
    const auto occupied = packs_.bytes();
    state.unlock();
    if (occupied + bytes <= options_.max_bytes) return {};
    bool evicted = false;
    if (auto done = evict_one(evicted); !done) return done;
    if (evicted) continue;
    return fail(ErrorCode::exhausted, directory_.string() + " may hold " +
                                          std::to_string(options_.max_bytes) +
                                          " bytes and all of them are in use: raise its limit");
  }
}

Result<> LocalStore::evict_one(bool& evicted) {
  const std::lock_guard only(commit_);  // no row of the pack is on its way into the index
  std::unique_lock state(state_);
  const Pack* oldest = nullptr;
  for (const auto& [number, pack] : packs_.all()) {
    if (number == active_ || pack.is_held()) continue;
    if (oldest == nullptr || pack.used < oldest->used) oldest = &pack;
  }
  if (oldest == nullptr) return {};
  const auto number = oldest->number;
  const auto path = packs_.path_of(number);
  obs::debug("chunks.evicted", {{"pack", path.string()}, {"bytes", oldest->bytes}});
  // From here on its rows are not believed, whatever happens to them.
  packs_.drop(number);
  std::erase_if(pending_, [&](const auto& frame) { return frame.second.pack == number; });
  uses_.erase(number);
  state.unlock();
  evicted = true;
  // The bytes first: if the index can not be written because the disk is full, this is what helps. Killed in
  // between, or after an error, open() drops the rows.
  if (::unlink(path.c_str()) != 0) return fail(errno_error("remove " + path.string(), errno));
  const std::lock_guard db(db_);
  auto cut = writer_->cut_pack(number, 0);
  if (!cut) return fail(cut.error());
  return {};
}

Result<SweepReport> LocalStore::sweep(const Mark& mark, std::chrono::seconds grace, std::stop_token stop) {
  const std::lock_guard only(sweep_);
  if (auto done = flush(); !done) return fail(done.error());
  auto marks = IndexReader::open(index_file(directory_));
  if (!marks) return fail(marks.error());
  if (auto done = (*marks)->clear_marks(); !done) return fail(done.error());
  Result<> noted;
  auto marked = mark([&](std::span<const ChunkId> ids) {
    if (noted) noted = (*marks)->mark(ids);
  });
  if (!marked) return fail(marked.error());
  if (!noted) return fail(noted.error());
  auto report = remove_unmarked(**marks, grace, stop);
  if (!report) return report;
  auto freed = reclaim(stop);
  if (!freed) return fail(freed.error());
  report->freed_bytes = *freed;
  return report;
}

/// Chunks that came after the marks were made are either not among `marks`' rows or only noted as dead, which
/// the next sweep undoes.
Result<SweepReport> LocalStore::remove_unmarked(IndexReader& marks, std::chrono::seconds grace,
                                                std::stop_token stop) {
  SweepReport report;
  const auto limit = SystemClock().wall_ms() - std::chrono::milliseconds(grace).count();
  for (std::int64_t key = -1;;) {
    if (stop.stop_requested()) return fail(ErrorCode::cancelled, "the sweep was stopped");
    auto rows = marks.marked_after(key, kSweepRows);
    if (!rows) return fail(rows.error());
    if (rows->empty()) return report;
    key = rows->back().row.place.key();
    std::vector<std::int64_t> needed, dead, removable;
    for (const auto& [row, marked] : *rows) {
      if (marked) {
        ++report.live;
        if (row.dead_since != 0) needed.push_back(row.place.key());
      } else if (row.dead_since == 0) {
        dead.push_back(row.place.key());
      } else if (row.dead_since <= limit) {
        removable.push_back(row.place.key());
      }
    }
    const std::lock_guard db(db_);
    if (!needed.empty()) {
      if (auto done = writer_->revive(needed); !done) return fail(done.error());
    }
    if (dead.empty() && removable.empty()) continue;
    auto swept = writer_->sweep(dead, removable, SystemClock().wall_ms(), limit);
    if (!swept) return fail(swept.error());
    report.newly_dead += swept->newly_dead;
    report.removed += swept->removed;
  }
}

Result<std::uint64_t> LocalStore::reclaim(std::stop_token stop) {
  auto reader = IndexReader::open(index_file(directory_));
  if (!reader) return fail(reader.error());
  std::vector<std::uint32_t> numbers;
  {
    const std::lock_guard state(state_);
    for (const auto& [number, pack] : packs_.all()) numbers.push_back(number);
  }
  std::uint64_t freed = 0;
  for (const auto number : numbers) {
    if (stop.stop_requested()) return fail(ErrorCode::cancelled, "the sweep was stopped");
    auto bytes = reclaim_pack(**reader, number);
    if (!bytes) return bytes;
    freed += *bytes;
  }
  return freed;
}

/// Only what no row names and nobody reads. Frames are committed in the order they were written, so in front
/// of the last row there is none that waits for its row; behind it there may be.
Result<std::uint64_t> LocalStore::reclaim_pack(IndexReader& reader, std::uint32_t number) {
  const std::lock_guard only(commit_);
  auto live = reader.live_bytes(number);
  if (!live) return fail(live.error());
  std::unique_lock state(state_);
  auto* pack = packs_.find(number);
  if (pack == nullptr || pack->is_held()) return 0;
  const auto before = pack->bytes;
  bool growing = number == active_;
  for (const auto& [id, place] : pending_) growing = growing || place.pack == number;
  if (*live == 0 && !growing) {
    packs_.drop(number);
    state.unlock();
    if (::unlink(packs_.path_of(number).c_str()) != 0 && errno != ENOENT) {
      return fail(errno_error("remove " + packs_.path_of(number).string(), errno));
    }
    return before;
  }
  const auto end = pack->end;
  if (*live + kWorthPunching >= std::min(end, before)) return 0;
  auto file = packs_.open(*pack);
  if (!file) return fail(file.error());
  state.unlock();
  GapPuncher puncher((*file)->get());
  const auto behind = Place::first_key(number + 1);
  for (std::int64_t key = Place::first_key(number) - 1;;) {
    auto rows = reader.after(key, behind, kSweepRows);
    if (!rows) return fail(rows.error());
    if (rows->empty()) break;
    key = rows->back().place.key();
    for (const auto& row : *rows) {
      if (auto done = puncher.keep(row.place); !done) return fail(done.error());
    }
  }
  if (!growing) {
    if (auto done = puncher.finish(end); !done) return fail(done.error());
  }
  state.lock();
  if (auto done = packs_.measure(*pack); !done) return fail(done.error());
  return before - std::min(before, pack->bytes);
}

}  // namespace educloud::chunk
