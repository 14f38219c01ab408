#include "common/transfer/disk_body.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace educloud::transfer {
namespace {

constexpr std::uint64_t kZeroBytes = 1u << 20;
/// Groups whose lists of chunks are read at once: 64 MiB of disk.
constexpr std::size_t kGroupsAhead = 16;
/// Chunks of one Reading; while one is sent the next is announced already.
constexpr std::size_t kChunksAhead = 64;

/// A file of zeros that is never written: holes are sent from it without copying.
std::shared_ptr<const sys::Fd> zero_file() {
  static const std::shared_ptr<const sys::Fd> file = [] {
    auto made = std::make_shared<const sys::Fd>(::memfd_create("educloud-zeros", MFD_CLOEXEC));
    const bool good = made->is_open() && ::ftruncate(made->get(), kZeroBytes) == 0;
    return good ? made : nullptr;
  }();
  return file;
}

Result<> read_slice(const chunk::FrameSlice& slice, std::string& out) {
  std::size_t done = 0;
  while (done < out.size()) {
    const auto at = static_cast<off_t>(slice.offset + done);
    const ssize_t got = ::pread(slice.file->get(), out.data() + done, out.size() - done, at);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(errno_error("read a stored frame", errno));
    if (got == 0) return fail(ErrorCode::corrupt, "a stored frame is cut short");
    done += static_cast<std::size_t>(got);
  }
  return {};
}

struct Wanted {
  std::uint64_t chunk = 0;
  chunk::ChunkId id;
};

struct OpenReading {
  std::unique_ptr<ChunkSource::Reading> reading;
  std::size_t begin = 0, end = 0;  ///< positions in the list of wanted chunks
};

class DiskPusher {
 public:
  DiskPusher(ChunkSource& source, const ChunkCaller& caller, const chunk::Manifest& manifest, DiskPart part,
             http::BodyStream& stream, const std::stop_token& stop)
      : source_(source),
        caller_(caller),
        manifest_(manifest),
        position_(part.offset),
        end_(part.offset + part.length),
        stream_(stream),
        stop_(stop) {}

  Result<> push_all() {
    if (position_ >= end_) return {};
    const auto first = static_cast<std::uint32_t>(position_ / chunk::kGroupBytes);
    const auto last = static_cast<std::uint32_t>((end_ - 1) / chunk::kGroupBytes);
    const auto& groups = manifest_.groups;
    auto at =
        std::lower_bound(groups.begin(), groups.end(), first,
                         [](const chunk::GroupRef& ref, std::uint32_t index) { return ref.index < index; });
    while (at != groups.end() && at->index <= last) {
      auto stop_at = at;
      while (stop_at != groups.end() && stop_at->index <= last &&
             stop_at - at < std::ptrdiff_t{kGroupsAhead}) {
        ++stop_at;
      }
      if (auto ok = read_groups(std::span(&*at, static_cast<std::size_t>(stop_at - at))); !ok) return ok;
      if (auto ok = push_chunks(); !ok) return ok;
      at = stop_at;
    }
    return push_zeros(end_);
  }

 private:
  /// Fills wanted_ with the chunks of these groups that are asked for.
  Result<> read_groups(std::span<const chunk::GroupRef> groups) {
    wanted_.clear();
    std::vector<chunk::ChunkId> ids;
    for (const auto& ref : groups) ids.push_back(ref.id);
    auto reading = source_.read(caller_, std::move(ids), stop_);
    if (!reading) return fail(reading.error());
    for (std::size_t i = 0; i < groups.size(); ++i) {
      auto frame = (*reading)->frame(i);
      if (!frame) return fail(frame.error());
      auto text = unpack(*frame, groups[i].id, decoder_);
      if (!text) return fail(text.error());
      auto group = chunk::Group::decode(*text, chunk::chunks_in_group(manifest_.disk_bytes, groups[i].index));
      if (!group) return fail(group.error());
      for (std::uint32_t c = 0; c < chunk::kGroupChunks; ++c) {
        const std::uint64_t number = std::uint64_t{groups[i].index} * chunk::kGroupChunks + c;
        const std::uint64_t begin = number * chunk::kChunkBytes;
        const bool asked = begin < end_ && begin + chunk::kChunkBytes > position_;
        if (asked && !group->chunks[c].is_hole()) wanted_.push_back({number, group->chunks[c]});
      }
    }
    return {};
  }

  Result<OpenReading> open(std::size_t begin) {
    OpenReading out{nullptr, begin, std::min(begin + kChunksAhead, wanted_.size())};
    std::vector<chunk::ChunkId> ids;
    for (std::size_t i = out.begin; i < out.end; ++i) ids.push_back(wanted_[i].id);
    if (ids.empty()) return out;
    auto reading = source_.read(caller_, std::move(ids), stop_);
    if (!reading) return fail(reading.error());
    out.reading = std::move(*reading);
    return out;
  }

  Result<> push_chunks() {
    auto current = open(0);
    while (current && current->begin < current->end) {
      auto next = open(current->end);
      if (!next) return fail(next.error());
      for (std::size_t i = current->begin; i < current->end; ++i) {
        auto frame = current->reading->frame(i - current->begin);
        if (!frame) return fail(frame.error());
        if (auto ok = push_chunk(wanted_[i], *frame); !ok) return ok;
      }
      current = std::move(next);
    }
    return current ? Result<>{} : fail(current.error());
  }

  Result<> push_chunk(const Wanted& wanted, const Frame& frame) {
    const std::uint64_t begin = wanted.chunk * chunk::kChunkBytes;
    auto bytes = unpack(frame, wanted.id, decoder_);
    if (!bytes) return fail(bytes.error());
    if (bytes->size() != chunk::chunk_length(manifest_.disk_bytes, wanted.chunk)) {
      return fail(ErrorCode::corrupt, "chunk " + wanted.id.hex() + " has " + std::to_string(bytes->size()) +
                                          " bytes, not those of its place in the disk");
    }
    if (auto ok = push_zeros(std::max(begin, position_)); !ok) return ok;
    if (begin < position_) bytes->erase(0, position_ - begin);
    if (bytes->size() > end_ - position_) bytes->resize(end_ - position_);
    position_ += bytes->size();
    return pushed(stream_.push(std::move(*bytes)));
  }

  /// Up to the byte `until`.
  Result<> push_zeros(std::uint64_t until) {
    const auto zeros = zero_file();
    while (position_ < until) {
      const std::uint64_t length = std::min(until - position_, kZeroBytes);
      position_ += length;
      const bool good = zeros ? stream_.push(zeros, 0, length) : stream_.push(std::string(length, '\0'));
      if (auto ok = pushed(good); !ok) return ok;
    }
    return {};
  }

  Result<> pushed(bool good) const {
    if (good && !stop_.stop_requested()) return {};
    return fail(ErrorCode::cancelled, "the client is gone");
  }

  ChunkSource& source_;
  const ChunkCaller& caller_;
  const chunk::Manifest& manifest_;
  std::uint64_t position_;
  const std::uint64_t end_;
  http::BodyStream& stream_;
  const std::stop_token& stop_;
  chunk::FrameDecoder decoder_;
  std::vector<Wanted> wanted_;
};

}  // namespace

Result<std::string> unpack(const Frame& frame, const chunk::ChunkId& id, chunk::FrameDecoder& decoder) {
  std::string read;
  std::span<const char> bytes;
  if (const auto* slice = std::get_if<chunk::FrameSlice>(&frame)) {
    if (slice->length > chunk::kMaxFrameBytes) return fail(ErrorCode::corrupt, "a frame longer than any");
    read.resize(slice->length);
    if (auto ok = read_slice(*slice, read); !ok) return fail(ok.error());
    bytes = read;
  } else {
    bytes = *std::get<std::shared_ptr<const std::string>>(frame);
  }
  if (bytes.size() < chunk::kFrameHeaderBytes) return fail(ErrorCode::corrupt, "a frame without its header");
  auto header = chunk::decode_header(bytes.first(chunk::kFrameHeaderBytes));
  if (!header) return fail(header.error());
  if (header->id != id) {
    return fail(ErrorCode::corrupt, "the frame of " + header->id.hex() + " came for " + id.hex());
  }
  if (bytes.size() != header->frame_bytes()) {
    return fail(ErrorCode::corrupt, "the frame of " + id.hex() + " is not as long as its header says");
  }
  std::string raw(header->raw_bytes, '\0');
  if (auto ok = decoder.decode(*header, bytes.subspan(chunk::kFrameHeaderBytes), raw); !ok) {
    return fail(ok.error());
  }
  return raw;
}

Result<> push_disk(ChunkSource& source, const ChunkCaller& caller, const chunk::Manifest& manifest,
                   DiskPart part, http::BodyStream& stream, const std::stop_token& stop) {
  return DiskPusher(source, caller, manifest, part, stream, stop).push_all();
}

}  // namespace educloud::transfer
