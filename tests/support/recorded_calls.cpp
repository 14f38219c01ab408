#include "support/recorded_calls.hpp"

#include <fcntl.h>
#include <sys/syscall.h>

#include <cerrno>
#include <cstdarg>

using namespace educloud::testing;

// Defined under names of our own, which the linker sees as the C library's: its declarations would be in the
// way.
// NOLINTBEGIN

#define EDUCLOUD_AS(symbol, returns, name, ...)                               \
  extern "C" __attribute__((used)) returns name(__VA_ARGS__) __asm__(symbol); \
  returns name(__VA_ARGS__)

namespace {
unsigned mode_of(int flags, va_list rest) {
  return (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(rest, unsigned) : 0;
}
ssize_t write_one(int fd, const void* data, size_t size, off_t at) {
  const iovec part{const_cast<void*>(data), size};
  return do_pwritev(fd, &part, 1, at);
}
}  // namespace

#define EDUCLOUD_OPEN(symbol, name)                                  \
  EDUCLOUD_AS(symbol, int, name, const char* path, int flags, ...) { \
    va_list rest;                                                    \
    va_start(rest, flags);                                           \
    const unsigned mode = mode_of(flags, rest);                      \
    va_end(rest);                                                    \
    return do_open(AT_FDCWD, path, flags, mode);                     \
  }
#define EDUCLOUD_OPENAT(symbol, name)                                        \
  EDUCLOUD_AS(symbol, int, name, int at, const char* path, int flags, ...) { \
    va_list rest;                                                            \
    va_start(rest, flags);                                                   \
    const unsigned mode = mode_of(flags, rest);                              \
    va_end(rest);                                                            \
    return do_open(at, path, flags, mode);                                   \
  }
EDUCLOUD_OPEN("open", seen_open)
EDUCLOUD_OPEN("open64", seen_open64)
EDUCLOUD_OPENAT("openat", seen_openat)
EDUCLOUD_OPENAT("openat64", seen_openat64)

EDUCLOUD_AS("write", ssize_t, seen_write, int fd, const void* data, size_t size) {
  return write_one(fd, data, size, -1);
}
EDUCLOUD_AS("pwrite", ssize_t, seen_pwrite, int fd, const void* data, size_t size, off_t at) {
  return write_one(fd, data, size, at);
}
EDUCLOUD_AS("pwrite64", ssize_t, seen_pwrite64, int fd, const void* data, size_t size, off_t at) {
  return write_one(fd, data, size, at);
}
EDUCLOUD_AS("writev", ssize_t, seen_writev, int fd, const iovec* parts, int count) {
  return do_pwritev(fd, parts, count, -1);
}
EDUCLOUD_AS("pwritev", ssize_t, seen_pwritev, int fd, const iovec* parts, int count, off_t at) {
  return do_pwritev(fd, parts, count, at);
}
EDUCLOUD_AS("pwritev64", ssize_t, seen_pwritev64, int fd, const iovec* parts, int count, off_t at) {
  return do_pwritev(fd, parts, count, at);
}
EDUCLOUD_AS("ftruncate", int, seen_ftruncate, int fd, off_t length) {
  return do_truncate(fd, length);
}
EDUCLOUD_AS("ftruncate64", int, seen_ftruncate64, int fd, off_t length) {
  return do_truncate(fd, length);
}
EDUCLOUD_AS("truncate", int, seen_truncate, const char* path, off_t length) {
  return do_truncate(path, length);
}
EDUCLOUD_AS("truncate64", int, seen_truncate64, const char* path, off_t length) {
  return do_truncate(path, length);
}
EDUCLOUD_AS("fallocate", int, seen_fallocate, int fd, int mode, off_t at, off_t size) {
  return do_fallocate(fd, mode, at, size);
}
EDUCLOUD_AS("fallocate64", int, seen_fallocate64, int fd, int mode, off_t at, off_t size) {
  return do_fallocate(fd, mode, at, size);
}
EDUCLOUD_AS("fsync", int, seen_fsync, int fd) {
  return do_sync(fd, SYS_fsync);
}
EDUCLOUD_AS("fdatasync", int, seen_fdatasync, int fd) {
  return do_sync(fd, SYS_fdatasync);
}
EDUCLOUD_AS("rename", int, seen_rename, const char* from, const char* to) {
  return do_rename(AT_FDCWD, from, AT_FDCWD, to, 0);
}
EDUCLOUD_AS("renameat", int, seen_renameat, int from_at, const char* from, int to_at, const char* to) {
  return do_rename(from_at, from, to_at, to, 0);
}
EDUCLOUD_AS("renameat2", int, seen_renameat2, int from_at, const char* from, int to_at, const char* to,
            unsigned flags) {
  return do_rename(from_at, from, to_at, to, flags);
}
EDUCLOUD_AS("link", int, seen_link, const char* from, const char* to) {
  return do_link(AT_FDCWD, from, AT_FDCWD, to, 0);
}
EDUCLOUD_AS("linkat", int, seen_linkat, int from_at, const char* from, int to_at, const char* to, int flags) {
  return do_link(from_at, from, to_at, to, flags);
}
EDUCLOUD_AS("unlink", int, seen_unlink, const char* path) {
  return do_unlink(AT_FDCWD, path, 0);
}
EDUCLOUD_AS("unlinkat", int, seen_unlinkat, int at, const char* path, int flags) {
  return do_unlink(at, path, flags);
}
EDUCLOUD_AS("rmdir", int, seen_rmdir, const char* path) {
  return do_unlink(AT_FDCWD, path, AT_REMOVEDIR);
}
EDUCLOUD_AS("remove", int, seen_remove, const char* path) {
  const int done = do_unlink(AT_FDCWD, path, 0);
  return done != 0 && errno == EISDIR ? do_unlink(AT_FDCWD, path, AT_REMOVEDIR) : done;
}
EDUCLOUD_AS("mkdir", int, seen_mkdir, const char* path, unsigned mode) {
  return do_mkdir(AT_FDCWD, path, mode);
}
EDUCLOUD_AS("ioctl", int, seen_ioctl, int fd, unsigned long request, ...) {
  va_list rest;
  va_start(rest, request);
  void* argument = va_arg(rest, void*);
  va_end(rest);
  return do_ioctl(fd, request, argument);
}
// NOLINTEND
