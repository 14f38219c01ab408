#include "common/sys/signals.hpp"

#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

namespace educloud::sys {
namespace {

sigset_t stop_signals() {
  sigset_t set;
  ::sigemptyset(&set);
  ::sigaddset(&set, SIGTERM);
  ::sigaddset(&set, SIGINT);
  return set;
}

}  // namespace

void block_stop_signals() {
  const sigset_t set = stop_signals();
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  struct sigaction ignore {};
  ignore.sa_handler = SIG_IGN;
  ::sigaction(SIGPIPE, &ignore, nullptr);
}

std::optional<int> wait_for_stop_signal(std::optional<std::chrono::milliseconds> timeout) {
  using SteadyClock = std::chrono::steady_clock;
  const sigset_t set = stop_signals();
  const auto deadline = SteadyClock::now() + timeout.value_or(std::chrono::milliseconds(0));
  for (;;) {
    int number = -1;
    if (!timeout) {
      number = ::sigwaitinfo(&set, nullptr);
    } else {
      const auto left = std::max(deadline - SteadyClock::now(), SteadyClock::duration::zero());
      const auto seconds = std::chrono::floor<std::chrono::seconds>(left);
      const timespec wait{static_cast<time_t>(seconds.count()),
                          static_cast<long>(std::chrono::nanoseconds(left - seconds).count())};
      number = ::sigtimedwait(&set, nullptr, &wait);
    }
    if (number > 0) return number;
    if (errno == EAGAIN) return std::nullopt;
    // EINTR: a debugger or a stop and continue; wait on.
  }
}

Result<Fd> stop_signal_fd() {
  const sigset_t set = stop_signals();
  Fd fd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd.is_open()) return fail(errno_error("signalfd", errno));
  return fd;
}

void raise_stop_signal() {
  ::kill(::getpid(), SIGTERM);
}

}  // namespace educloud::sys
