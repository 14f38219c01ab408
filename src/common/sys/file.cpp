#include "common/sys/file.hpp"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "common/base/random.hpp"

namespace educloud::sys {
namespace {

/// What stands before the errno text: "open /x".
std::string about(std::string_view what, const std::filesystem::path& path) {
  return std::string(what) + " " + path.string();
}

Result<> sync_fd(int fd, const std::filesystem::path& path) {
  if (::fsync(fd) != 0) return fail(errno_error(about("fsync", path), errno));
  return {};
}

std::filesystem::path parent_of(const std::filesystem::path& path) {
  auto parent = path.parent_path();
  return parent.empty() ? std::filesystem::path(".") : parent;
}

Result<std::string> read_open_file(int fd, const std::filesystem::path& path, std::size_t limit) {
  std::string content;
  std::array<char, 16 * 1024> buffer;
  for (;;) {
    const ssize_t got = ::read(fd, buffer.data(), buffer.size());
    if (got < 0) {
      if (errno == EINTR) continue;
      return fail(errno_error(about("read", path), errno));
    }
    if (got == 0) return content;
    if (content.size() + static_cast<std::size_t>(got) > limit) {
      return fail(ErrorCode::too_large,
                  path.string() + " is larger than " + std::to_string(limit) + " bytes");
    }
    content.append(buffer.data(), static_cast<std::size_t>(got));
  }
}

}  // namespace

Fd& Fd::operator=(Fd&& other) noexcept {
  if (this != &other) {
    close();
    fd_ = other.release();
  }
  return *this;
}

Fd::~Fd() {
  close();
}

int Fd::release() {
  return std::exchange(fd_, -1);
}

void Fd::close() {
  // Never retried: on Linux the descriptor is free even after EINTR.
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
}

Result<Fd> open_file(const std::filesystem::path& path, int flags, unsigned mode) {
  for (;;) {
    const int fd = ::open(path.c_str(), flags | O_CLOEXEC, mode);
    if (fd >= 0) return Fd(fd);
    if (errno != EINTR) return fail(errno_error(about("open", path), errno));
  }
}

Result<Fd> open_beneath(const std::filesystem::path& root, std::string_view relative, int flags,
                        unsigned mode) {
  const auto shown = [&] { return root.string() + " + '" + std::string(relative.substr(0, 200)) + "'"; };
  if (relative.empty() || relative.find('\0') != std::string_view::npos) {
    return fail(ErrorCode::invalid_argument, "not a relative path: " + shown());
  }
  // ".." that stays inside would be allowed by the kernel; a name from outside never needs it.
  for (const auto& part : std::filesystem::path(relative)) {
    if (part == "..") return fail(ErrorCode::invalid_argument, "'..' in a path: " + shown());
  }
  auto directory = open_file(root, O_PATH | O_DIRECTORY);
  if (!directory) return fail(directory.error());
  open_how how{};
  how.flags = static_cast<std::uint64_t>(flags) | O_CLOEXEC;
  // openat2 refuses a mode without a flag that makes a file.
  how.mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? mode : 0;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  const std::string name(relative);
  for (;;) {
    const auto fd = ::syscall(SYS_openat2, directory->get(), name.c_str(), &how, sizeof how);
    if (fd >= 0) return Fd(static_cast<int>(fd));
    if (errno == EINTR || errno == EAGAIN) continue;
    if (errno == EXDEV || errno == ELOOP) {
      return fail(ErrorCode::invalid_argument,
                  "the path leaves its directory or goes through a link: " + shown());
    }
    return fail(errno_error("open " + shown(), errno));
  }
}

Result<std::string> read_file(const std::filesystem::path& path, std::size_t limit) {
  auto fd = open_file(path, O_RDONLY);
  if (!fd) return fail(fd.error());
  return read_open_file(fd->get(), path, limit);
}

Result<std::string> read_secret_file(const std::filesystem::path& path) {
  auto fd = open_file(path, O_RDONLY);
  if (!fd) return fail(fd.error());
  struct stat info {};
  // fstat of what was opened: a check by path could be raced.
  if (::fstat(fd->get(), &info) != 0) return fail(errno_error(about("stat", path), errno));
  if (!S_ISREG(info.st_mode)) {
    return fail(ErrorCode::invalid_argument, path.string() + " is not an ordinary file");
  }
  if ((info.st_mode & 077) != 0) {
    return fail(
        ErrorCode::permission_denied,
        path.string() + " holds a secret but others may read or write it: chmod 600 " + path.string());
  }
  auto content = read_open_file(fd->get(), path, 64 * 1024);
  if (!content) return content;
  if (content->ends_with('\n')) content->pop_back();
  if (content->ends_with('\r')) content->pop_back();
  if (content->empty())
    return fail(ErrorCode::invalid_argument, path.string() + " is empty but must hold a secret");
  return content;
}

Result<> write_file_atomically(const std::filesystem::path& path, std::string_view content, unsigned mode) {
  // A name of its own, so that two writers of one path do not write into each other's file.
  const auto beside = parent_of(path) / ("." + path.filename().string() + "." + random_hex(6) + ".tmp");
  auto fd = open_file(beside, O_WRONLY | O_CREAT | O_EXCL, mode);
  if (!fd) return fail(fd.error());
  const auto finish = [&]() -> Result<> {
    // The umask must not decide: a secret is 0600, a unit file 0644, as the caller said.
    if (::fchmod(fd->get(), mode) != 0) return fail(errno_error(about("chmod", beside), errno));
    if (auto done = write_all(fd->get(), content); !done) return fail(done.error(), beside.string());
    if (auto done = sync_fd(fd->get(), beside); !done) return done;
    if (::rename(beside.c_str(), path.c_str()) != 0)
      return fail(errno_error(about("rename to", path), errno));
    return {};
  };
  if (auto done = finish(); !done) {
    ::unlink(beside.c_str());
    return done;
  }
  return sync_path(parent_of(path));
}

Result<> make_directories(const std::filesystem::path& path, unsigned mode) {
  if (path.empty()) return fail(ErrorCode::invalid_argument, "make_directories: empty path");
  struct stat info {};
  if (::stat(path.c_str(), &info) == 0) {
    if (S_ISDIR(info.st_mode)) return {};
    return fail(ErrorCode::conflict, path.string() + " exists but is not a directory");
  }
  if (errno != ENOENT) return fail(errno_error(about("stat", path), errno));
  const auto normal = path.has_filename() ? path : path.parent_path();
  const auto parent = parent_of(normal);
  if (parent != normal) {
    if (auto made = make_directories(parent, mode); !made) return made;
  }
  // EEXIST: somebody else made it between the two calls.
  if (::mkdir(normal.c_str(), mode) != 0 && errno != EEXIST) {
    return fail(errno_error(about("mkdir", normal), errno));
  }
  return sync_path(parent);
}

Result<> sync_path(const std::filesystem::path& path) {
  auto fd = open_file(path, O_RDONLY);
  if (!fd) return fail(fd.error());
  return sync_fd(fd->get(), path);
}

Result<> write_all(int fd, std::string_view data) {
  while (!data.empty()) {
    const ssize_t wrote = ::write(fd, data.data(), data.size());
    if (wrote < 0) {
      if (errno == EINTR) continue;
      return fail(errno_error("write", errno));
    }
    data.remove_prefix(static_cast<std::size_t>(wrote));
  }
  return {};
}

Result<> pwrite_all(int fd, std::string_view data, std::uint64_t offset) {
  while (!data.empty()) {
    const ssize_t wrote = ::pwrite(fd, data.data(), data.size(), static_cast<off_t>(offset));
    if (wrote < 0) {
      if (errno == EINTR) continue;
      return fail(errno_error("write at " + std::to_string(offset), errno));
    }
    data.remove_prefix(static_cast<std::size_t>(wrote));
    offset += static_cast<std::uint64_t>(wrote);
  }
  return {};
}

Result<DiskSpace> disk_space(const std::filesystem::path& path) {
  struct statvfs info {};
  if (::statvfs(path.c_str(), &info) != 0) return fail(errno_error(about("statvfs", path), errno));
  return DiskSpace{static_cast<std::uint64_t>(info.f_blocks) * info.f_frsize,
                   static_cast<std::uint64_t>(info.f_bavail) * info.f_frsize};
}

}  // namespace educloud::sys
