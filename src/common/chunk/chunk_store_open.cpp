// Opening a store: what a crash left is made to agree again.
//   a pack's tail without rows    frames that were not committed: cut
//   a pack without rows           the same, or removed by a sweep that was killed: unlinked
//   rows behind a pack's end      of a cache after a power cut, or the disk lost something: dropped
//   rows of a pack that is gone   evicted: dropped
// Holes that a killed sweep did not punch are punched by the next one.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "common/chunk/chunk_store_local.hpp"
#include "common/obs/log.hpp"

namespace educloud::chunk {
namespace fs = std::filesystem;
namespace {

constexpr const char* kIndex = "index.sqlite";

Result<std::unique_ptr<LocalStore>> open_as_it_is(const fs::path& directory, ChunkStore::Options options,
                                                  sys::Fd& lock) {
  auto writer = IndexWriter::open(index_file(directory), options.durable);
  if (!writer) return fail(writer.error());
  auto reader = IndexReader::open(index_file(directory));
  if (!reader) return fail(reader.error());
  auto held = sys::Fd(::fcntl(lock.get(), F_DUPFD_CLOEXEC, 0));  // shares the lock
  if (!held.is_open()) return fail(errno_error("dup", errno));
  auto store = std::make_unique<LocalStore>(directory, options, std::move(held), std::move(*writer),
                                            std::move(*reader));
  if (auto done = store->recover(); !done) return fail(done.error());
  return store;
}

/// All chunks of a cache, which is what they are for.
Result<> empty(const fs::path& directory) {
  std::error_code error;
  for (const char* name : {"index.sqlite", "index.sqlite-wal", "index.sqlite-shm"}) {
    fs::remove(directory / name, error);
    if (error) return fail(errno_error("remove " + (directory / name).string(), error.value()));
  }
  fs::remove_all(directory / "packs", error);
  if (error) return fail(errno_error("remove " + (directory / "packs").string(), error.value()));
  return sys::make_directories(directory / "packs", 0700);
}

}  // namespace

fs::path index_file(const fs::path& directory) {
  return directory / kIndex;
}

std::uint64_t index_bytes(const fs::path& directory) {
  std::uint64_t sum = 0;
  for (const char* name : {"index.sqlite", "index.sqlite-wal", "index.sqlite-shm"}) {
    struct stat info {};
    if (::stat((directory / name).c_str(), &info) == 0)
      sum += static_cast<std::uint64_t>(info.st_blocks) * 512;
  }
  return sum;
}

Result<std::unique_ptr<ChunkStore>> ChunkStore::open(const fs::path& given, Options options) {
  std::error_code error;
  const auto directory = fs::absolute(given, error);
  if (error) return fail(errno_error("resolve " + given.string(), error.value()));
  if (auto made = sys::make_directories(directory / "packs", 0700); !made) return fail(made.error());
  auto lock = sys::open_file(directory / ".lock", O_RDWR | O_CREAT, 0600);
  if (!lock) return fail(lock.error());
  if (::flock(lock->get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return fail(errno_error("lock " + (directory / ".lock").string(), errno));
    return fail(ErrorCode::conflict, directory.string() + " is in use by another process");
  }
  auto store = open_as_it_is(directory, options, *lock);
  if (!store && store.error().code == ErrorCode::corrupt && !options.durable) {
    obs::warn("chunks.cache_emptied", {{"path", directory.string()}, {"error", store.error().message}});
    if (auto done = empty(directory); !done) return fail(done.error());
    store = open_as_it_is(directory, options, *lock);
  }
  if (!store) return fail(store.error());
  return std::unique_ptr<ChunkStore>(std::move(*store));
}

Result<> LocalStore::recover() {
  const std::lock_guard state(state_);
  if (auto done = packs_.scan(); !done) return done;
  auto named = reader_->packs();
  if (!named) return fail(named.error());
  for (const auto number : *named) {
    if (packs_.find(number) != nullptr) continue;
    auto cut = writer_->cut_pack(number, 0);
    if (!cut) return fail(cut.error());
    obs::warn("chunks.pack_gone", {{"pack", packs_.path_of(number).string()}, {"chunks", *cut}});
  }
  auto uses = reader_->uses();
  if (!uses) return fail(uses.error());
  std::vector<std::uint32_t> numbers;
  for (const auto& [number, pack] : packs_.all()) numbers.push_back(number);
  for (const auto number : numbers) {
    auto& pack = *packs_.find(number);
    const auto used = uses->find(number);
    if (used != uses->end()) pack.used = used->second;
    tick_ = std::max(tick_, pack.used);
    if (auto done = recover_pack(pack); !done) return done;
  }
  // After a power cut rows of a cache may be older than its packs: there no place is written again.
  if (options_.durable && !packs_.all().empty()) active_ = packs_.all().rbegin()->first;
  return {};
}

Result<> LocalStore::recover_pack(Pack& pack) {
  const auto path = packs_.path_of(pack.number);
  auto last = reader_->last_of(pack.number);
  if (!last) return fail(last.error());
  if (*last && (*last)->place.end() > pack.end) {
    auto cut = writer_->cut_pack(pack.number, pack.end);
    if (!cut) return fail(cut.error());
    const obs::Fields fields = {{"pack", path.string()}, {"bytes", pack.end}, {"chunks", *cut}};
    if (options_.durable) {
      obs::error("chunks.pack_short", fields);
    } else {
      obs::warn("chunks.pack_short", fields);
    }
    last = reader_->last_of(pack.number);
    if (!last) return fail(last.error());
  }
  if (!*last) {
    if (::unlink(path.c_str()) != 0) return fail(errno_error("remove " + path.string(), errno));
    packs_.drop(pack.number);
    return {};
  }
  const auto end = (*last)->place.end();
  if (end == pack.end) return {};
  if (::truncate(path.c_str(), static_cast<off_t>(end)) != 0) {
    return fail(errno_error("cut " + path.string(), errno));
  }
  pack.end = end;
  return packs_.measure(pack);
}

}  // namespace educloud::chunk
