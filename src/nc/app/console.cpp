#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "common/sys/file.hpp"
#include "nc/app/heartbeat.hpp"

namespace educloud::nc {
namespace {

std::filesystem::path older(const std::filesystem::path& file) {
  return file.string() + ".1";
}

/// The last `most` bytes. O_NOFOLLOW: the folder is ours, but a link in it would be somebody's trick.
Result<std::string> tail(const std::filesystem::path& file, std::size_t most) {
  auto fd = sys::open_file(file, O_RDONLY | O_NOFOLLOW);
  if (!fd) return fail(fd.error());
  struct stat info {};
  if (::fstat(fd->get(), &info) != 0) return fail(errno_error("stat " + file.string(), errno));
  const auto size = static_cast<std::size_t>(info.st_size);
  std::string text(std::min(size, most), '\0');
  const auto got = ::pread(fd->get(), text.data(), text.size(), static_cast<off_t>(size - text.size()));
  if (got < 0) return fail(errno_error("read " + file.string(), errno));
  text.resize(static_cast<std::size_t>(got));
  return text;
}

}  // namespace

Result<> cut_console(const std::filesystem::path& file, std::uint64_t limit_bytes) {
  struct stat info {};
  if (::lstat(file.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) return {};
  if (static_cast<std::uint64_t>(info.st_size) <= limit_bytes) return {};
  auto kept = tail(file, static_cast<std::size_t>(limit_bytes / 4));
  if (!kept) return fail(kept.error());
  if (auto ok = sys::write_file_atomically(older(file), *kept, 0600); !ok) return ok;
  if (::truncate(file.c_str(), 0) != 0) return fail(errno_error("truncate " + file.string(), errno));
  return {};
}

Result<std::string> read_console(const std::filesystem::path& file, std::size_t most) {
  auto text = tail(file, most);
  if (!text) return text;
  if (text->size() == most) return text;
  if (auto before = tail(older(file), most - text->size())) *text = *before + *text;
  return text;
}

}  // namespace educloud::nc
