#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "common/chunk/chunk_store_local.hpp"

namespace educloud::chunk {
namespace {

constexpr std::size_t kRows = 1024;
constexpr std::size_t kWindowBytes = 4u << 20;
constexpr std::uint64_t kTellBytes = 1u << 20;

/// Reads a pack from front to back.
class Window {
 public:
  /// The bytes of `place`, at most those that the file has.
  Result<std::span<const char>> at(int fd, const Place& place) {
    const bool inside = place.offset >= start_ && place.end() <= start_ + filled_;
    if (!inside) {
      if (auto done = fill(fd, place); !done) return fail(done.error());
    }
    const auto skip = static_cast<std::size_t>(place.offset - start_);
    return std::span<const char>(buffer_).subspan(skip, std::min<std::size_t>(place.length, filled_ - skip));
  }
  void clear() { filled_ = 0; }

 private:
  Result<> fill(int fd, const Place& place) {
    start_ = place.offset;
    filled_ = 0;
    while (filled_ < buffer_.size()) {
      const auto got = ::pread(fd, buffer_.data() + filled_, buffer_.size() - filled_,
                               static_cast<off_t>(start_ + filled_));
      if (got < 0 && errno == EINTR) continue;
      // A bad sector somewhere behind what is wanted is somebody else's damage.
      if (got < 0 && filled_ < place.length) return fail(errno_error("read", errno));
      if (got <= 0) break;
      filled_ += static_cast<std::size_t>(got);
    }
    return {};
  }

  std::vector<char> buffer_ = std::vector<char>(kWindowBytes);
  std::uint64_t start_ = 0;
  std::size_t filled_ = 0;
};

/// What is wrong with a frame.
Result<> check(const IndexRow& row, std::span<const char> bytes, FrameDecoder& decoder,
               std::span<char> scratch) {
  if (row.place.length <= kFrameHeaderBytes || row.place.length > kMaxFrameBytes) {
    return fail(ErrorCode::corrupt, "the index says " + std::to_string(row.place.length) + " bytes");
  }
  if (bytes.size() < row.place.length) {
    return fail(ErrorCode::corrupt, "the pack ends inside of it");
  }
  auto header = decode_header(bytes.first(kFrameHeaderBytes));
  if (!header) return fail(header.error());
  if (header->id != row.id) return fail(ErrorCode::corrupt, "the frame there is of " + header->id.hex());
  if (header->frame_bytes() != row.place.length || header->raw_bytes != row.place.raw_bytes) {
    return fail(ErrorCode::corrupt, "its header has other lengths than the index");
  }
  return decoder.decode(*header, bytes.subspan(kFrameHeaderBytes), scratch);
}

}  // namespace

Result<std::uint64_t> verify_packs(IndexReader& reader, const OpenPack& open,
                                   const std::function<void(const Damage&)>& on_damage,
                                   const std::function<void(std::uint64_t, std::uint64_t)>& on_bytes,
                                   std::stop_token stop) {
  const auto totals = reader.totals();
  if (!totals) return fail(totals.error());
  FrameDecoder decoder;
  Window window;
  std::vector<char> scratch(kChunkBytes);
  std::shared_ptr<const sys::Fd> file;
  std::uint32_t pack = 0;
  std::uint64_t frames = 0, done = 0, told = 0;
  const auto frame_of = [&](const IndexRow& row) -> Result<> {
    if (row.place.pack != pack) {
      window.clear();
      pack = row.place.pack;
      auto opened = open(pack);
      file = opened ? std::move(*opened) : nullptr;
      // What counts is what the disk has, not what memory still has.
      if (file) ::posix_fadvise(file->get(), 0, 0, POSIX_FADV_DONTNEED);
    }
    if (!file) return fail(ErrorCode::corrupt, "its pack can not be opened");
    auto bytes = window.at(file->get(), row.place);
    if (!bytes) return fail(bytes.error());
    return check(row, *bytes, decoder, scratch);
  };
  for (std::int64_t key = -1;;) {
    auto rows = reader.after(key, std::numeric_limits<std::int64_t>::max(), kRows);
    if (!rows) return fail(rows.error());
    if (rows->empty()) break;
    key = rows->back().place.key();
    for (const auto& row : *rows) {
      if (stop.stop_requested()) return fail(ErrorCode::cancelled, "stopped");
      const auto good = frame_of(row);
      if (!good) {
        // Removed meanwhile, and its bytes given back: no damage.
        std::vector<std::optional<IndexRow>> now(1);
        auto found = reader.find(
            {&row.id, 1}, [](std::size_t) { return true; }, now);
        if (!found) return fail(found.error());
        if (now[0] && now[0]->place == row.place) {
          on_damage({row.id, PackFiles::name_of(row.place.pack), row.place.offset, good.error().message});
        }
      }
      ++frames;
      done += row.place.length;
      if (on_bytes && done - told >= kTellBytes) on_bytes(told = done, std::max(done, totals->stored_bytes));
    }
  }
  if (on_bytes) on_bytes(done, std::max(done, totals->stored_bytes));
  return frames;
}

Result<std::uint64_t> LocalStore::verify(const std::function<void(const Damage&)>& on_damage,
                                         const std::function<void(std::uint64_t, std::uint64_t)>& on_bytes,
                                         std::stop_token stop) {
  if (auto done = flush(); !done) return fail(done.error());
  auto reader = IndexReader::open(index_file(directory_));
  if (!reader) return fail(reader.error());
  const auto open = [this](std::uint32_t number) -> Result<std::shared_ptr<const sys::Fd>> {
    const std::lock_guard state(state_);
    auto* pack = packs_.find(number);
    if (pack == nullptr) return nullptr;
    return packs_.open(*pack);
  };
  return verify_packs(**reader, open, on_damage, on_bytes, stop);
}

}  // namespace educloud::chunk
