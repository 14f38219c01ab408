#pragma once

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdint>

namespace educloud::bus {

/// Lets other threads wake one thread that waits for its socket. rabbitmq-c itself may only be
/// touched by that one thread.
class Wakeup {
 public:
  Wakeup() : fd_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}
  ~Wakeup() {
    if (fd_ >= 0) ::close(fd_);
  }
  Wakeup(const Wakeup&) = delete;
  Wakeup& operator=(const Wakeup&) = delete;

  /// Any thread. Several calls before the next `wait` count as one.
  void wake() {
    const std::uint64_t one = 1;
    // EAGAIN means that the counter is full, so the thread wakes anyway.
    while (::write(fd_, &one, sizeof one) < 0 && errno == EINTR) {
    }
  }

  /// Returns when woken, when `socket` (-1: none) can be read or is broken, or after `timeout`.
  void wait(int socket, std::chrono::milliseconds timeout) {
    pollfd fds[2] = {{fd_, POLLIN, 0}, {socket, POLLIN, 0}};
    if (timeout.count() < 0) timeout = std::chrono::milliseconds{0};
    ::poll(fds, socket >= 0 ? 2 : 1, static_cast<int>(timeout.count()));
    std::uint64_t count = 0;
    while (::read(fd_, &count, sizeof count) < 0 && errno == EINTR) {
    }
  }

 private:
  int fd_;
};

}  // namespace educloud::bus
