#include "nc/cache/fill_journal.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace educloud::nc {
namespace fs = std::filesystem;
namespace {

constexpr std::size_t kHeaderBytes = 4096;
constexpr std::size_t kSumAt = kHeaderBytes - chunk::ChunkId::kBytes;
constexpr std::size_t kBaseAt = 64;
constexpr std::size_t kMaxBase = 512;
constexpr std::size_t kPage = 4096;
constexpr char kMagic[4] = {'E', 'D', 'J', '1'};
static_assert(std::endian::native == std::endian::little, "fields are copied as they are in memory");

template <class T>
void put(std::string& out, std::size_t at, T value) {
  std::memcpy(out.data() + at, &value, sizeof value);
}

template <class T>
T get(const std::string& in, std::size_t at) {
  T value{};
  std::memcpy(&value, in.data() + at, sizeof value);
  return value;
}

std::size_t words_of(std::uint64_t disk_bytes) {
  return chunk::group_count(disk_bytes);
}

std::string encode(const FillJournal::Header& header) {
  std::string out(kHeaderBytes, '\0');
  std::memcpy(out.data(), kMagic, sizeof kMagic);
  put<std::uint32_t>(out, 4, kHeaderBytes);
  std::memcpy(out.data() + 8, header.digest.bytes.data(), chunk::ChunkId::kBytes);
  put<std::uint64_t>(out, 40, header.fingerprint);
  put<std::uint64_t>(out, 48, header.disk_bytes);
  put<std::uint64_t>(out, 56, words_of(header.disk_bytes));
  put<std::uint16_t>(out, kBaseAt, static_cast<std::uint16_t>(header.base.size()));
  std::memcpy(out.data() + kBaseAt + 2, header.base.data(), header.base.size());
  const auto sum = chunk::ChunkId::of(std::span(out).first(kSumAt));
  std::memcpy(out.data() + kSumAt, sum.bytes.data(), sum.bytes.size());
  return out;
}

Result<> pread_all(int fd, void* into, std::size_t length, std::uint64_t offset) {
  auto* at = static_cast<char*>(into);
  while (length > 0) {
    const auto got = ::pread(fd, at, length, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(errno_error("read journal", errno));
    if (got == 0) return fail(ErrorCode::corrupt, "journal is cut short");
    at += got;
    offset += static_cast<std::uint64_t>(got);
    length -= static_cast<std::size_t>(got);
  }
  return {};
}

Result<FillJournal::Header> load_header(int fd) {
  std::string text(kHeaderBytes, '\0');
  if (auto done = pread_all(fd, text.data(), text.size(), 0); !done) return fail(done.error());
  const auto sum = chunk::ChunkId::of(std::span(text).first(kSumAt));
  const auto base_bytes = get<std::uint16_t>(text, kBaseAt);
  if (std::memcmp(text.data(), kMagic, sizeof kMagic) != 0 ||
      std::memcmp(text.data() + kSumAt, sum.bytes.data(), sum.bytes.size()) != 0 || base_bytes > kMaxBase) {
    return fail(ErrorCode::corrupt, "journal header does not match its checksum");
  }
  FillJournal::Header header;
  std::memcpy(header.digest.bytes.data(), text.data() + 8, chunk::ChunkId::kBytes);
  header.fingerprint = get<std::uint64_t>(text, 40);
  header.disk_bytes = get<std::uint64_t>(text, 48);
  header.base = text.substr(kBaseAt + 2, base_bytes);
  if (header.disk_bytes > chunk::kMaxDiskBytes ||
      get<std::uint64_t>(text, 56) != words_of(header.disk_bytes)) {
    return fail(ErrorCode::corrupt, "journal header has impossible sizes");
  }
  return header;
}

}  // namespace

Result<FillJournal> FillJournal::create(const fs::path& path, const Header& header) {
  if (header.base.size() > kMaxBase) return fail(ErrorCode::invalid_argument, "base name is too long");
  const auto words = words_of(header.disk_bytes);
  // Beside, then renamed: a journal is there whole or not at all.
  auto beside = path;
  beside += ".new";
  auto fd = sys::open_file(beside, O_RDWR | O_CREAT | O_TRUNC, 0600);
  if (!fd) return fail(fd.error());
  if (auto done = sys::pwrite_all(fd->get(), encode(header), 0); !done) return fail(done.error());
  if (::ftruncate(fd->get(), static_cast<off_t>(kHeaderBytes + words * 8)) != 0 || ::fsync(fd->get()) != 0) {
    return fail(errno_error("write " + beside.string(), errno));
  }
  if (::rename(beside.c_str(), path.c_str()) != 0)
    return fail(errno_error("rename to " + path.string(), errno));
  if (auto done = sys::sync_path(path.parent_path()); !done) return fail(done.error());
  return FillJournal(path, std::move(*fd), ChunkBits(words, 0));
}

Result<FillJournal::Header> FillJournal::read_header(const fs::path& path) {
  auto fd = sys::open_file(path, O_RDONLY | O_NOFOLLOW);
  if (!fd) return fail(fd.error());
  return load_header(fd->get());
}

Result<FillJournal> FillJournal::open(const fs::path& path, const Header& wanted) {
  auto fd = sys::open_file(path, O_RDWR | O_NOFOLLOW);
  if (!fd) return fail(fd.error());
  auto header = load_header(fd->get());
  if (!header) return fail(header.error(), path.string());
  if (*header != wanted) return fail(ErrorCode::conflict, path.string() + " is about another fill");
  ChunkBits marked(words_of(wanted.disk_bytes), 0);
  if (auto done = pread_all(fd->get(), marked.data(), marked.size() * 8, kHeaderBytes); !done)
    return fail(done.error(), path.string());
  return FillJournal(path, std::move(*fd), std::move(marked));
}

Result<> FillJournal::mark(const ChunkBits& bits) {
  constexpr std::size_t kWords = kPage / 8;
  bool changed = false;
  for (std::size_t first = 0; first < marked_.size(); first += kWords) {
    const auto count = std::min(kWords, marked_.size() - first);
    if (std::equal(bits.begin() + static_cast<std::ptrdiff_t>(first),
                   bits.begin() + static_cast<std::ptrdiff_t>(first + count),
                   marked_.begin() + static_cast<std::ptrdiff_t>(first))) {
      continue;
    }
    std::copy_n(bits.begin() + static_cast<std::ptrdiff_t>(first), count,
                marked_.begin() + static_cast<std::ptrdiff_t>(first));
    const std::string_view page(reinterpret_cast<const char*>(marked_.data() + first), count * 8);
    if (auto done = sys::pwrite_all(fd_.get(), page, kHeaderBytes + first * 8); !done)
      return fail(done.error(), path_.string());
    changed = true;
  }
  if (changed && ::fdatasync(fd_.get()) != 0) return fail(errno_error("sync " + path_.string(), errno));
  return {};
}

}  // namespace educloud::nc
