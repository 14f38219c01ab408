#include "common/chunk/chunk_store_local.hpp"

namespace educloud::chunk {
namespace {

/// Somebody else's store.
class ReadOnlyStore final : public ChunkStore {
 public:
  ReadOnlyStore(std::filesystem::path directory, std::unique_ptr<IndexReader> reader)
      : directory_(std::move(directory)), reader_(std::move(reader)), packs_(directory_ / "packs", false) {}

  Result<std::vector<bool>> missing(std::span<const ChunkId> ids, bool keep) override {
    if (keep) return refuse();
    const std::lock_guard lock(mutex_);
    auto rows = look_up(ids);
    if (!rows) return fail(rows.error());
    std::vector<bool> missing(ids.size());
    for (std::size_t i = 0; i < ids.size(); ++i) missing[i] = !(*rows)[i];
    return missing;
  }

  Result<std::vector<std::optional<FrameSlice>>> find(std::span<const ChunkId> ids) override {
    const std::lock_guard lock(mutex_);
    auto rows = look_up(ids);
    if (!rows) return fail(rows.error());
    std::vector<std::optional<FrameSlice>> slices(ids.size());
    for (std::size_t i = 0; i < ids.size(); ++i) {
      if (!(*rows)[i]) continue;
      const auto& place = (*rows)[i]->place;
      auto file = open_pack(place.pack);
      if (!file) {
        if (file.error().code == ErrorCode::not_found) continue;
        return fail(file.error());
      }
      slices[i] = FrameSlice{std::move(*file), place.offset, place.length, place.raw_bytes};
    }
    return slices;
  }

  Result<> put(const FrameHeader&, std::span<const char>) override { return refuse(); }
  Result<> flush() override { return {}; }
  Result<> forget(const ChunkId&) override { return refuse(); }
  Result<SweepReport> sweep(const Mark&, std::chrono::seconds, std::stop_token) override { return refuse(); }

  Result<std::uint64_t> verify(const std::function<void(const Damage&)>& on_damage,
                               const std::function<void(std::uint64_t, std::uint64_t)>& on_bytes,
                               std::stop_token stop) override {
    auto reader = IndexReader::open(index_file(directory_));
    if (!reader) return fail(reader.error());
    const auto open = [this](std::uint32_t number) -> Result<std::shared_ptr<const sys::Fd>> {
      const std::lock_guard lock(mutex_);
      return open_pack(number);
    };
    return verify_packs(**reader, open, on_damage, on_bytes, stop);
  }

  Result<StoreStats> stats() override {
    const std::lock_guard lock(mutex_);
    auto totals = reader_->totals();
    if (!totals) return fail(totals.error());
    PackFiles now(directory_ / "packs", false);
    if (auto done = now.scan(); !done) return fail(done.error());
    return StoreStats{totals->chunks, totals->raw_bytes, totals->stored_bytes,
                      now.bytes() + index_bytes(directory_)};
  }

 private:
  static tl::unexpected<Error> refuse() {
    return fail(ErrorCode::conflict, "the chunks are opened for reading only");
  }

  Result<std::vector<std::optional<IndexRow>>> look_up(std::span<const ChunkId> ids) {
    std::vector<std::optional<IndexRow>> rows(ids.size());
    const auto all = [&](std::size_t i) { return !ids[i].is_hole(); };
    if (auto done = reader_->find(ids, all, rows); !done) return fail(done.error());
    return rows;
  }

  Result<std::shared_ptr<const sys::Fd>> open_pack(std::uint32_t number) {
    auto* pack = packs_.find(number);
    return packs_.open(pack == nullptr ? packs_.adopt(number) : *pack);
  }

  const std::filesystem::path directory_;
  std::mutex mutex_;
  const std::unique_ptr<IndexReader> reader_;
  PackFiles packs_;
};

}  // namespace

Result<std::unique_ptr<ChunkStore>> ChunkStore::open_read_only(const std::filesystem::path& directory) {
  auto reader = IndexReader::open(index_file(directory));
  if (!reader) return fail(reader.error());
  return std::unique_ptr<ChunkStore>(std::make_unique<ReadOnlyStore>(directory, std::move(*reader)));
}

}  // namespace educloud::chunk
