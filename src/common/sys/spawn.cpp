#include "common/sys/spawn.hpp"

#include <grp.h>
#include <linux/close_range.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>

namespace educloud::sys {
namespace {

enum class Step : int { streams, directory, network, limits, user, privileges, death_signal, exec };
constexpr std::array<const char*, 8> kStepNames{"connect the standard streams",
                                                "enter the working directory",
                                                "make an empty network namespace",
                                                "set the resource limits",
                                                "switch the user",
                                                "set no_new_privs",
                                                "set the parent-death signal",
                                                "execute the program"};

struct Fault {
  Step step;
  int errno_value;
};

[[noreturn]] void report(int fault_fd, Step step) {
  const Fault fault{step, errno};
  // 8 bytes into an empty pipe: all or nothing.
  [[maybe_unused]] const auto wrote = ::write(fault_fd, &fault, sizeof fault);
  ::_exit(127);
}

void reset_signals() {
  struct sigaction standard {};
  standard.sa_handler = SIG_DFL;
  // Ignored signals stay ignored through exec; SIGPIPE ignored would surprise most programs.
  for (int number = 1; number < 65; ++number) ::sigaction(number, &standard, nullptr);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
}

bool limit_to(int resource, std::uint64_t value) {
  const rlimit limit{value, value};
  return ::setrlimit(static_cast<__rlimit_resource>(resource), &limit) == 0;
}

bool set_limits(const SpawnPlan& plan) {
  if (plan.address_space_limit != 0 && !limit_to(RLIMIT_AS, plan.address_space_limit)) return false;
  if (plan.cpu_seconds_limit != 0) {
    // SIGXCPU at the limit, which says why; SIGKILL for a program that ignores it.
    const rlimit cpu{plan.cpu_seconds_limit, plan.cpu_seconds_limit + 2};
    if (::setrlimit(RLIMIT_CPU, &cpu) != 0) return false;
  }
  if (plan.file_size_limit != 0 && !limit_to(RLIMIT_FSIZE, plan.file_size_limit)) return false;
  return limit_to(RLIMIT_CORE, 0);  // a core file could hold a guest's data
}

bool switch_user(const SpawnPlan& plan) {
  // Raw system calls: glibc's wrappers signal all threads of the process, which after fork are
  // gone but may be halfway in glibc's list.
  return ::syscall(SYS_setgroups, 0, nullptr) == 0 &&
         ::syscall(SYS_setresgid, plan.gid, plan.gid, plan.gid) == 0 &&
         ::syscall(SYS_setresuid, plan.uid, plan.uid, plan.uid) == 0;
}

/// In the child. Only async-signal-safe calls.
[[noreturn]] void become(const SpawnPlan& plan, pid_t parent) {
  ::setpgid(0, 0);
  reset_signals();
  if (::dup2(plan.stdin_fd, 0) < 0 || ::dup2(plan.stdout_fd, 1) < 0 || ::dup2(plan.stderr_fd, 2) < 0) {
    report(plan.fault_fd, Step::streams);
  }
  // Also descriptors that a library opened without O_CLOEXEC.
  if (::syscall(SYS_close_range, 3U, ~0U, CLOSE_RANGE_CLOEXEC) != 0) report(plan.fault_fd, Step::streams);
  if (plan.working_directory != nullptr && ::chdir(plan.working_directory) != 0) {
    report(plan.fault_fd, Step::directory);
  }
  if (plan.new_network && ::unshare(CLONE_NEWNET) != 0) report(plan.fault_fd, Step::network);
  if (!set_limits(plan)) report(plan.fault_fd, Step::limits);
  if (plan.switch_user) {
    if (!switch_user(plan)) report(plan.fault_fd, Step::user);
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) report(plan.fault_fd, Step::privileges);
  }
  // Last, because the kernel clears it when the user changes. It fires when the *thread* that forked
  // ends, not the process: right here, because that thread is inside run() until the child is reaped.
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0) report(plan.fault_fd, Step::death_signal);
  if (::getppid() != parent) ::_exit(127);  // the parent died before the prctl
  ::execve(plan.program, plan.argv, plan.environment);
  report(plan.fault_fd, Step::exec);
}

}  // namespace

Result<pid_t> spawn(const SpawnPlan& plan) {
  // No handler of ours may run in the child before its signals are reset.
  sigset_t all, before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid == 0) become(plan, parent);
  const int fork_errno = errno;
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (pid < 0) return fail(errno_error("fork", fork_errno));
  // The child does it too; whoever comes first. Fails harmlessly once it has executed.
  ::setpgid(pid, pid);
  return pid;
}

std::optional<Error> spawn_fault(std::string_view written) {
  Fault fault{};
  if (written.size() < sizeof fault) return std::nullopt;
  std::memcpy(&fault, written.data(), sizeof fault);
  const auto index = static_cast<std::size_t>(fault.step);
  return errno_error(index < kStepNames.size() ? kStepNames[index] : "start", fault.errno_value);
}

}  // namespace educloud::sys
