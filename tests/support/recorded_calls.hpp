#pragma once

#include <sys/types.h>
#include <sys/uio.h>

namespace educloud::testing {

// What stands in the place of the system calls, for recorded_calls.cpp: done, and noted by the recorder.
int do_open(int at, const char* path, int flags, unsigned mode);
/// At a negative offset: where the file stands.
ssize_t do_pwritev(int fd, const iovec* parts, int count, off_t at);
int do_truncate(int fd, off_t length);
int do_truncate(const char* path, off_t length);
int do_sync(int fd, long call);
int do_fallocate(int fd, int mode, off_t at, off_t size);
int do_rename(int from_at, const char* from, int to_at, const char* to, unsigned flags);
int do_link(int from_at, const char* from, int to_at, const char* to, int flags);
int do_unlink(int at, const char* path, int flags);
int do_mkdir(int at, const char* path, unsigned mode);
int do_ioctl(int fd, unsigned long request, void* argument);

}  // namespace educloud::testing
