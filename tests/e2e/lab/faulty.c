// Preloaded into a daemon: what a bad disk, a wrong clock or a power cut does to it, as the file $EDUCLOUD_FAULTS orders.
// That file is mapped, so faulty.py changes the orders and reads the counts while the daemon runs.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct orders {              // as faulty.py packs it
  volatile int64_t clock_ms; // added to the time of day; CLOCK_MONOTONIC and CLOCK_BOOTTIME stay true
  volatile uint32_t every;   // of the writes and syncs of matching files each n-th fails with EIO; 0: none
  volatile uint32_t point;   // the process is killed at its n-th sync or write to the broker; 0: never
  volatile uint32_t after;   // 1: killed after that call, 0: before it
  uint32_t reserved;
  volatile uint64_t seen, failed, points;
  char path[200];            // files whose path holds this text match
};

static struct orders *orders;
static const uint16_t kBrokerPort = 5672;

__attribute__((constructor)) static void open_orders(void) {
  const char *path = getenv("EDUCLOUD_FAULTS");
  const int fd = path == NULL ? -1 : open(path, O_RDWR | O_CLOEXEC);
  if (fd < 0) return;
  void *memory = mmap(NULL, sizeof(struct orders), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (memory != MAP_FAILED) orders = memory;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/// Whether this write or sync of `fd` has to fail.
static int must_fail(int fd) {
  if (orders == NULL || orders->every == 0) return 0;
  char link[64], path[512];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const ssize_t length = readlink(link, path, sizeof path - 1);
  if (length <= 0) return 0;
  path[length] = '\0';
  if (strstr(path, orders->path) == NULL) return 0;
  if (__atomic_add_fetch(&orders->seen, 1, __ATOMIC_RELAXED) % orders->every != 0) return 0;
  __atomic_add_fetch(&orders->failed, 1, __ATOMIC_RELAXED);
  errno = EIO;
  return 1;
}

/// Counts a point; 1 if the process has to die at it.
static int is_last_point(void) {
  if (orders == NULL) return 0;
  const uint64_t now = __atomic_add_fetch(&orders->points, 1, __ATOMIC_RELAXED);
  return orders->point != 0 && now >= orders->point;
}

static void die(void) {
  kill(getpid(), SIGKILL);
  for (;;) pause();
}

static int goes_to_broker(int fd) {
  struct sockaddr_in peer;
  socklen_t length = sizeof peer;
  const int saved = errno;
  const int got = getpeername(fd, (struct sockaddr *)&peer, &length);
  errno = saved;
  return got == 0 && peer.sin_family == AF_INET && ntohs(peer.sin_port) == kBrokerPort;
}

#define AT_A_POINT(call)                         \
  do {                                           \
    const int last = is_last_point();            \
    if (last && orders->after == 0) die();       \
    const __typeof__(call) result = (call);      \
    if (last) die();                             \
    return result;                               \
  } while (0)

int fsync(int fd) {
  if (must_fail(fd)) return -1;
  AT_A_POINT(REAL(fsync)(fd));
}
int fdatasync(int fd) {
  if (must_fail(fd)) return -1;
  AT_A_POINT(REAL(fdatasync)(fd));
}
ssize_t pwrite(int fd, const void *from, size_t length, off_t at) {
  return must_fail(fd) ? -1 : REAL(pwrite)(fd, from, length, at);
}
ssize_t pwrite64(int fd, const void *from, size_t length, off64_t at) {
  return must_fail(fd) ? -1 : REAL(pwrite64)(fd, from, length, at);
}
ssize_t write(int fd, const void *from, size_t length) {
  return must_fail(fd) ? -1 : REAL(write)(fd, from, length);
}
ssize_t send(int fd, const void *from, size_t length, int flags) {
  if (orders == NULL || !goes_to_broker(fd)) return REAL(send)(fd, from, length, flags);
  AT_A_POINT(REAL(send)(fd, from, length, flags));
}
ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
  if (orders == NULL || !goes_to_broker(fd)) return REAL(sendmsg)(fd, message, flags);
  AT_A_POINT(REAL(sendmsg)(fd, message, flags));
}

int clock_gettime(clockid_t id, struct timespec *into) {
  const int done = REAL(clock_gettime)(id, into);
  if (done == 0 && orders != NULL && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) {
    const int64_t jump = orders->clock_ms;
    into->tv_sec += jump / 1000;
    into->tv_nsec += jump % 1000 * 1000000;
    if (into->tv_nsec >= 1000000000) into->tv_sec += 1, into->tv_nsec -= 1000000000;
    if (into->tv_nsec < 0) into->tv_sec -= 1, into->tv_nsec += 1000000000;
  }
  return done;
}
int gettimeofday(struct timeval *restrict into, void *restrict zone) {
  (void)zone;
  struct timespec now;
  const int done = clock_gettime(CLOCK_REALTIME, &now);
  into->tv_sec = now.tv_sec, into->tv_usec = now.tv_nsec / 1000;
  return done;
}
time_t time(time_t *into) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (into != NULL) *into = now.tv_sec;
  return now.tv_sec;
}
