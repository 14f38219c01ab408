// Counts the syncs of the process it is preloaded into: two 64-bit numbers, fsync and fdatasync, in the file
// $EDUCLOUD_SYNCS.<pid>. strace would count as well and slow everything down tenfold.
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace {

using Counter = std::atomic<std::uint64_t>;

Counter* open_counters() {
  static Counter nowhere[2];
  const char* base = std::getenv("EDUCLOUD_SYNCS");
  char path[512];
  if (base == nullptr || std::snprintf(path, sizeof path, "%s.%d", base, ::getpid()) >= int{sizeof path})
    return nowhere;
  const int fd = ::open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0 || ::ftruncate(fd, 2 * sizeof(Counter)) != 0) return nowhere;
  void* memory = ::mmap(nullptr, 2 * sizeof(Counter), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  ::close(fd);
  return memory == MAP_FAILED ? nowhere : static_cast<Counter*>(memory);
}

int count_and_call(const char* name, int which, int fd) {
  static Counter* const counters = open_counters();
  counters[which].fetch_add(1, std::memory_order_relaxed);
  using Call = int (*)(int);
  return reinterpret_cast<Call>(::dlsym(RTLD_NEXT, name))(fd);
}

}  // namespace

extern "C" int fsync(int fd) {
  return count_and_call("fsync", 0, fd);
}
extern "C" int fdatasync(int fd) {
  return count_and_call("fdatasync", 1, fd);
}
