#include "common/chunk/chunk_store.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "common/chunk/chunk_store_local.hpp"
#include "common/obs/log.hpp"

namespace educloud::chunk {
namespace {

constexpr std::uint64_t kWritebackBytes = 8u << 20;
/// Frames that wait for a commit which fails, in units of commit_every.
constexpr std::size_t kMaxPending = 4;

ChunkStore::Options bounded(ChunkStore::Options options) {
  options.commit_every = std::clamp<std::size_t>(options.commit_every, 1, 1 << 16);
  if (options.max_bytes != 0) options.pack_bytes = std::min(options.pack_bytes, options.max_bytes / 16);
  // At least one frame of any size fits.
  options.pack_bytes =
      std::clamp<std::uint64_t>(options.pack_bytes, kMaxFrameBytes, Place::kMaxPackBytes - kMaxFrameBytes);
  return options;
}

}  // namespace

LocalStore::LocalStore(std::filesystem::path directory, Options options, sys::Fd lock,
                       std::unique_ptr<IndexWriter> writer, std::unique_ptr<IndexReader> reader)
    : directory_(std::move(directory)),
      options_(bounded(options)),
      lock_(std::move(lock)),
      writer_(std::move(writer)),
      reader_(std::move(reader)),
      packs_(directory_ / "packs", true) {}

LocalStore::~LocalStore() {
  if (auto done = commit(0); !done) {
    obs::warn("chunks.close_failed", {{"path", directory_.string()}, {"error", done.error().message}});
  }
}

Result<std::vector<std::optional<IndexRow>>> LocalStore::look_up(std::span<const ChunkId> ids) {
  std::vector<std::optional<IndexRow>> rows(ids.size());
  std::size_t found = 0;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    for (const auto* frames : {&pending_, &committing_}) {
      const auto frame = frames->find(ids[i]);
      if (frame == frames->end()) continue;
      rows[i] = IndexRow{ids[i], frame->second, 0};
      ++found;
      break;
    }
  }
  if (found < ids.size()) {
    const auto unknown = [&](std::size_t i) { return !rows[i] && !ids[i].is_hole(); };
    if (auto done = reader_->find(ids, unknown, rows); !done) return fail(done.error());
  }
  for (auto& row : rows) {
    if (row && packs_.find(row->place.pack) == nullptr) row.reset();  // evicted a moment ago
  }
  return rows;
}

Result<> LocalStore::revive(std::vector<std::optional<IndexRow>>& rows) {
  std::vector<std::int64_t> keys;
  for (const auto& row : rows) {
    if (row && row->dead_since != 0) keys.push_back(row->place.key());
  }
  if (keys.empty()) return {};
  const std::lock_guard db(db_);
  auto there = writer_->revive(keys);
  if (!there) return fail(there.error());
  std::size_t next = 0;
  for (auto& row : rows) {
    if (row && row->dead_since != 0 && !(*there)[next++]) row.reset();
  }
  return {};
}

Result<std::vector<bool>> LocalStore::missing(std::span<const ChunkId> ids, bool keep) {
  std::unique_lock state(state_);
  auto rows = look_up(ids);
  if (rows && keep) {
    for (const auto& row : *rows) {
      if (row) packs_.find(row->place.pack)->used = ++tick_;
    }
  }
  state.unlock();
  if (!rows) return fail(rows.error());
  if (keep) {
    if (auto done = revive(*rows); !done) return fail(done.error());
  }
  std::vector<bool> missing(ids.size());
  for (std::size_t i = 0; i < ids.size(); ++i) missing[i] = !(*rows)[i];
  return missing;
}

Result<std::vector<std::optional<FrameSlice>>> LocalStore::find(std::span<const ChunkId> ids) {
  std::vector<std::optional<FrameSlice>> slices(ids.size());
  const std::lock_guard state(state_);
  auto rows = look_up(ids);
  if (!rows) return fail(rows.error());
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (!(*rows)[i]) continue;
    const auto& place = (*rows)[i]->place;
    auto& pack = *packs_.find(place.pack);
    auto file = packs_.open(pack);
    if (!file) {
      if (file.error().code == ErrorCode::not_found) continue;  // somebody removed it under us
      return fail(file.error());
    }
    pack.used = ++tick_;
    if (options_.max_bytes != 0) uses_[place.pack] = pack.used;
    slices[i] = FrameSlice{std::move(*file), place.offset, place.length, place.raw_bytes};
  }
  return slices;
}

Result<bool> LocalStore::is_here(const ChunkId& id) {
  std::unique_lock state(state_);
  if (broken_) return fail(*broken_);
  const bool too_many = pending_.size() >= options_.commit_every * kMaxPending;
  auto rows = look_up({&id, 1});
  state.unlock();
  if (!rows) return fail(rows.error());
  if (auto done = revive(*rows); !done) return fail(done.error());
  if (rows->front()) return true;
  if (too_many) {
    if (auto done = commit(options_.commit_every); !done) return fail(done.error());
  }
  return false;
}

Result<> LocalStore::put(const FrameHeader& header, std::span<const char> stored) {
  if (header.id.is_hole() || stored.empty() || stored.size() != header.stored_bytes ||
      stored.size() > kChunkBytes || header.raw_bytes == 0 || header.raw_bytes > kChunkBytes) {
    return fail(ErrorCode::invalid_argument, "chunk " + header.id.hex() + ": not a frame to be stored");
  }
  std::array<char, kFrameHeaderBytes> encoded{};
  encode_header(header, encoded);
  std::unique_lock append(append_);
  auto here = is_here(header.id);
  if (!here) return fail(here.error());
  if (*here) return {};
  const auto length = static_cast<std::uint32_t>(header.frame_bytes());
  auto target = pack_for(length);
  if (!target) return fail(target.error());
  auto& pack = *target->pack;
  const Place place{pack.number, pack.end, length, header.raw_bytes};
  if (auto done = write_frame(target->file->get(), encoded, stored, place.offset); !done) {
    return fail(done.error(), packs_.path_of(place.pack).string());
  }
  std::unique_lock state(state_);
  pack.end += length;
  pack.bytes += length;
  pack.used = ++tick_;
  if (options_.max_bytes != 0) uses_[place.pack] = tick_;
  pending_.emplace(header.id, place);
  const bool due = pending_.size() >= options_.commit_every;
  state.unlock();
  start_writeback(*target->file, place.end());
  append.unlock();
  if (due) return commit(options_.commit_every);
  return {};
}

/// So that the sync of a commit finds little left to do.
void LocalStore::start_writeback(const sys::Fd& file, std::uint64_t end) {
  if (!options_.durable || end < written_back_ + kWritebackBytes) return;
  ::sync_file_range(file.get(), static_cast<off_t>(written_back_), static_cast<off_t>(end - written_back_),
                    SYNC_FILE_RANGE_WRITE);
  written_back_ = end;
}

Result<LocalStore::Target> LocalStore::pack_for(std::uint64_t bytes) {
  if (auto done = make_room(bytes); !done) return fail(done.error());
  const std::lock_guard state(state_);
  auto* pack = packs_.find(active_);
  if (pack == nullptr || pack->end + bytes > options_.pack_bytes) {
    auto made = packs_.create(options_.durable);
    if (!made) return fail(made.error());
    pack = *made;
    active_ = pack->number;
    written_back_ = 0;
  }
  auto file = packs_.open(*pack);
  if (!file) return fail(file.error());
  return Target{pack, std::move(*file)};
}

Result<> LocalStore::sync(const Frames& frames) {
  if (!options_.durable) return {};
  std::vector<std::uint32_t> numbers;
  for (const auto& [id, place] : frames) numbers.push_back(place.pack);
  std::sort(numbers.begin(), numbers.end());
  numbers.erase(std::unique(numbers.begin(), numbers.end()), numbers.end());
  for (const auto number : numbers) {
    std::unique_lock state(state_);
    auto* pack = packs_.find(number);
    if (pack == nullptr) continue;
    auto file = packs_.open(*pack);
    state.unlock();
    if (!file) return fail(file.error());
    if (::fdatasync((*file)->get()) != 0) {
      return fail(errno_error("sync " + packs_.path_of(number).string(), errno));
    }
  }
  return {};
}

Result<> LocalStore::commit(std::size_t at_least) {
  const std::lock_guard only(commit_);
  std::unique_lock state(state_);
  if (broken_) return fail(*broken_);
  if (pending_.size() < at_least || (pending_.empty() && uses_.empty())) return {};
  committing_.swap(pending_);
  const auto uses = std::exchange(uses_, {});
  std::vector<IndexRow> rows;
  rows.reserve(committing_.size());
  for (const auto& [id, place] : committing_) rows.push_back({id, place, 0});
  state.unlock();
  std::sort(rows.begin(), rows.end(),
            [](const auto& a, const auto& b) { return a.place.key() < b.place.key(); });
  if (auto synced = sync(committing_); !synced) {
    // The kernel forgets what it could not write: a later sync that succeeds would prove nothing.
    state.lock();
    broken_ = Error{synced.error().code,
                    synced.error().message + "; what was stored last may be lost: check the disk, restart"};
    return fail(*broken_);
  }
  auto done = [&] {
    const std::lock_guard db(db_);
    return writer_->insert(rows, uses);
  }();
  state.lock();
  if (!done) {
    pending_.merge(committing_);
    uses_.insert(uses.begin(), uses.end());
  }
  committing_.clear();
  return done;
}

Result<> LocalStore::flush() {
  return commit(0);
}

Result<> LocalStore::forget(const ChunkId& id) {
  const std::lock_guard only(commit_);  // nothing is on its way into the index
  std::unique_lock state(state_);
  pending_.erase(id);
  auto rows = look_up({&id, 1});
  state.unlock();
  if (!rows) return fail(rows.error());
  if (!rows->front()) return {};
  const std::lock_guard db(db_);
  return writer_->remove(std::array{rows->front()->place.key()});
}

Result<StoreStats> LocalStore::stats() {
  StoreStats stats;
  const std::lock_guard state(state_);
  auto totals = reader_->totals();
  if (!totals) return fail(totals.error());
  stats.chunks = totals->chunks;
  stats.raw_bytes = totals->raw_bytes;
  stats.stored_bytes = totals->stored_bytes;
  // committing_ may be in the index already: a moment's error of a commit at most.
  for (const auto& [id, place] : pending_) {
    ++stats.chunks;
    stats.raw_bytes += place.raw_bytes;
    stats.stored_bytes += place.length;
  }
  stats.disk_bytes = packs_.bytes() + index_bytes(directory_);
  return stats;
}

Result<LoadedFrame> load(const FrameSlice& slice) {
  if (!slice.file || slice.length <= kFrameHeaderBytes || slice.length > kMaxFrameBytes) {
    return fail(ErrorCode::corrupt, "a frame of " + std::to_string(slice.length) + " bytes");
  }
  std::array<char, kFrameHeaderBytes> encoded{};
  LoadedFrame frame;
  frame.stored.resize(slice.length - kFrameHeaderBytes);
  if (auto done = read_exactly(slice.file->get(), encoded, slice.offset); !done) return fail(done.error());
  if (auto done = read_exactly(slice.file->get(), frame.stored, slice.offset + kFrameHeaderBytes); !done) {
    return fail(done.error());
  }
  auto header = decode_header(encoded);
  if (!header) return fail(header.error());
  if (header->frame_bytes() != slice.length || header->raw_bytes != slice.raw_bytes) {
    return fail(ErrorCode::corrupt, "chunk " + header->id.hex() + ": its frame is not what the index says");
  }
  frame.header = *header;
  return frame;
}

}  // namespace educloud::chunk
