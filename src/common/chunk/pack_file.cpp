#include "common/chunk/pack_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>

namespace educloud::chunk {
namespace {

constexpr std::string_view kSuffix = ".pack";
constexpr std::uint64_t kBlockBytes = 4096;

std::optional<std::uint32_t> parse_name(const std::string& name) {
  if (!name.ends_with(kSuffix)) return std::nullopt;
  const auto digits = std::string_view(name).substr(0, name.size() - kSuffix.size());
  std::uint32_t number = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (error != std::errc{} || end != digits.data() + digits.size()) return std::nullopt;
  if (number == 0 || number > Place::kMaxPack || PackFiles::name_of(number) != name) return std::nullopt;
  return number;
}

}  // namespace

Result<> PackFiles::scan() {
  packs_.clear();
  open_.clear();
  std::error_code error;
  std::filesystem::directory_iterator entry(directory_, error);
  for (const std::filesystem::directory_iterator end; !error && entry != end; entry.increment(error)) {
    const auto number = parse_name(entry->path().filename().string());
    if (!number) continue;
    struct stat info {};
    if (::lstat(entry->path().c_str(), &info) != 0 || !S_ISREG(info.st_mode)) continue;
    packs_[*number] = {.number = *number,
                       .end = static_cast<std::uint64_t>(info.st_size),
                       .bytes = static_cast<std::uint64_t>(info.st_blocks) * 512};
    next_ = std::max(next_, *number + 1);
  }
  if (error) return fail(errno_error("list " + directory_.string(), error.value()));
  return {};
}

Result<Pack*> PackFiles::create(bool durable) {
  if (next_ > Place::kMaxPack) return fail(ErrorCode::exhausted, directory_.string() + ": no more packs");
  const auto number = next_++;
  auto fd = sys::open_file(path_of(number), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
  if (!fd) return fail(fd.error());
  if (durable) {
    if (auto synced = sys::sync_path(directory_); !synced) return fail(synced.error());
  }
  auto& pack = packs_[number];
  pack.number = number;
  pack.file = std::make_shared<const sys::Fd>(std::move(*fd));
  pack.open_place = open_.insert(open_.end(), number);
  close_idle();
  return &pack;
}

Pack* PackFiles::find(std::uint32_t number) {
  const auto found = packs_.find(number);
  return found == packs_.end() ? nullptr : &found->second;
}

Pack& PackFiles::adopt(std::uint32_t number) {
  auto& pack = packs_[number];
  pack.number = number;
  return pack;
}

Result<std::shared_ptr<const sys::Fd>> PackFiles::open(Pack& pack) {
  if (pack.file) return pack.file;
  auto fd = sys::open_file(path_of(pack.number), (writable_ ? O_RDWR : O_RDONLY) | O_NOFOLLOW);
  if (!fd) return fail(fd.error());
  auto file = std::make_shared<const sys::Fd>(std::move(*fd));
  pack.file = file;
  pack.open_place = open_.insert(open_.end(), pack.number);
  close_idle();
  return file;
}

void PackFiles::close_idle() {
  // The newest is the one just asked for.
  for (auto at = open_.begin(); open_.size() > kMaxIdleOpen && std::next(at) != open_.end();) {
    auto& pack = packs_[*at];
    if (pack.is_held()) {
      ++at;
      continue;
    }
    pack.file = nullptr;
    at = open_.erase(at);
  }
}

void PackFiles::drop(std::uint32_t number) {
  const auto found = packs_.find(number);
  if (found == packs_.end()) return;
  if (found->second.file) open_.erase(found->second.open_place);
  packs_.erase(found);
}

Result<> PackFiles::measure(Pack& pack) {
  struct stat info {};
  if (::stat(path_of(pack.number).c_str(), &info) != 0) {
    return fail(errno_error("stat " + path_of(pack.number).string(), errno));
  }
  pack.bytes = static_cast<std::uint64_t>(info.st_blocks) * 512;
  return {};
}

std::uint64_t PackFiles::bytes() const {
  std::uint64_t sum = 0;
  for (const auto& [number, pack] : packs_) sum += pack.bytes;
  return sum;
}

Result<> write_frame(int fd, std::span<const char> header, std::span<const char> stored,
                     std::uint64_t offset) {
  std::array<iovec, 2> parts{iovec{const_cast<char*>(header.data()), header.size()},
                             iovec{const_cast<char*>(stored.data()), stored.size()}};
  std::span<iovec> left(parts);
  while (!left.empty()) {
    const auto written =
        ::pwritev(fd, left.data(), static_cast<int>(left.size()), static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) {
      // EFBIG: a limit set for this process or the file system; more room is what helps.
      if (errno == EFBIG) return fail(ErrorCode::exhausted, "write a pack: " + errno_text(EFBIG));
      return fail(errno_error("write a pack", written == 0 ? ENOSPC : errno));
    }
    offset += static_cast<std::uint64_t>(written);
    for (auto rest = static_cast<std::size_t>(written); rest > 0;) {
      auto& part = left.front();
      const auto step = std::min(rest, part.iov_len);
      part.iov_base = static_cast<char*>(part.iov_base) + step;
      part.iov_len -= step;
      rest -= step;
      if (part.iov_len == 0) left = left.subspan(1);
    }
    while (!left.empty() && left.front().iov_len == 0) left = left.subspan(1);
  }
  return {};
}

Result<> read_exactly(int fd, std::span<char> out, std::uint64_t offset) {
  while (!out.empty()) {
    const auto got = ::pread(fd, out.data(), out.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(errno_error("read a pack", errno));
    if (got == 0) {
      return fail(ErrorCode::corrupt, "the pack ends " + std::to_string(out.size()) + " bytes too early");
    }
    out = out.subspan(static_cast<std::size_t>(got));
    offset += static_cast<std::uint64_t>(got);
  }
  return {};
}

Result<> GapPuncher::punch(std::uint64_t from, std::uint64_t to) const {
  from = (from + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
  to = to / kBlockBytes * kBlockBytes;
  if (from >= to) return {};
  if (::fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(from),
                  static_cast<off_t>(to - from)) == 0) {
    return {};
  }
  if (errno == EOPNOTSUPP) return {};  // this file system gives space back by whole packs only
  return fail(errno_error("punch a hole into a pack", errno));
}

Result<> GapPuncher::keep(const Place& place) {
  const auto from = std::exchange(from_, std::max(from_, place.end()));
  if (place.offset <= from) return {};
  return punch(from, place.offset);
}

Result<> GapPuncher::finish(std::uint64_t end) {
  // The last block may be punched whole: nothing is behind `end`.
  return punch(from_, (end + kBlockBytes - 1) / kBlockBytes * kBlockBytes);
}

}  // namespace educloud::chunk
