#include "common/sys/process.hpp"

#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

extern "C" {  // glibc 2.36 forgot it
#include <sys/pidfd.h>
}

#include <cerrno>
#include <csignal>

#include "common/sys/file.hpp"
#include "common/sys/spawn.hpp"

namespace educloud::sys {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr std::string_view kSearchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

struct Pipe {
  Fd read_end, write_end;
};

/// Both ends close-on-exec and not 0..2, so that the child's dup2 onto 0..2 cannot hit one of them
/// even in a daemon that was started with closed standard streams.
Result<Pipe> make_pipe() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return fail(errno_error("pipe", errno));
  std::array<Fd, 2> low{Fd(ends[0]), Fd(ends[1])};
  Pipe result;
  for (auto [from, to] : {std::pair{&low[0], &result.read_end}, std::pair{&low[1], &result.write_end}}) {
    if (from->get() > 2) {
      *to = std::move(*from);
      continue;
    }
    *to = Fd(::fcntl(from->get(), F_DUPFD_CLOEXEC, 3));
    if (!to->is_open()) return fail(errno_error("dup", errno));
  }
  return result;
}

Result<> make_nonblocking(const Fd& fd) {
  const int flags = ::fcntl(fd.get(), F_GETFL);
  if (flags < 0 || ::fcntl(fd.get(), F_SETFL, flags | O_NONBLOCK) != 0)
    return fail(errno_error("fcntl", errno));
  return {};
}

Result<std::string> find_program(const std::string& name) {
  if (name.find('/') != std::string::npos) return name;
  std::string_view rest = kSearchPath;
  while (!rest.empty()) {
    const auto end = std::min(rest.find(':'), rest.size());
    const auto path = std::string(rest.substr(0, end)) + "/" + name;
    if (::access(path.c_str(), X_OK) == 0) return path;
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return fail(ErrorCode::not_found, "program '" + name + "' is not in " + std::string(kSearchPath));
}

Result<> look_up_user(const std::string& name, SpawnPlan& plan) {
  passwd entry{};
  passwd* found = nullptr;
  std::vector<char> buffer(16 * 1024);
  const int code = ::getpwnam_r(name.c_str(), &entry, buffer.data(), buffer.size(), &found);
  if (code != 0) return fail(errno_error("look up user '" + name + "'", code));
  if (found == nullptr) {
    return fail(ErrorCode::not_found,
                "there is no user '" + name + "': create it (useradd --system " + name + ")");
  }
  if (entry.pw_uid == 0) return fail(ErrorCode::invalid_argument, "run_as_user '" + name + "' is root");
  plan.switch_user = true;
  plan.uid = entry.pw_uid;
  plan.gid = entry.pw_gid;
  return {};
}

/// One running child and the five descriptors its parent watches.
class Child {
 public:
  Child(const ProcessOptions& options, std::stop_token stop) : options_(options), stop_(std::move(stop)) {}
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() {
    if (pid_ > 0) kill_and_reap();
  }

  Result<> start();
  Result<ProcessResult> wait();

 private:
  Result<> prepare(SpawnPlan& plan);
  void write_input();
  bool drain(Fd& fd, std::string& into, bool is_stdout);
  void kill_group() { ::kill(-pid_, SIGKILL); }
  int reap();
  void kill_and_reap() {
    kill_group();
    ::kill(pid_, SIGKILL);  // a child that has not reached its setpgid yet
    reap();
  }
  Result<ProcessResult> finish();

  const ProcessOptions& options_;
  std::stop_token stop_;
  pid_t pid_ = -1;
  Fd pidfd_, stdin_, stdout_, stderr_, failure_, stop_event_;
  Pipe in_, out_, err_, fault_;
  std::size_t input_done_ = 0;
  ProcessResult result_;
  std::string fault_text_;
};

Result<> Child::prepare(SpawnPlan& plan) {
  for (auto [pipe, parent_reads] :
       {std::pair{&in_, false}, std::pair{&out_, true}, std::pair{&err_, true}, std::pair{&fault_, true}}) {
    auto made = make_pipe();
    if (!made) return fail(made.error());
    *pipe = std::move(*made);
    if (auto done = make_nonblocking(parent_reads ? pipe->read_end : pipe->write_end); !done) return done;
  }
  stop_event_ = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!stop_event_.is_open()) return fail(errno_error("eventfd", errno));
  plan.stdin_fd = in_.read_end.get();
  plan.stdout_fd = out_.write_end.get();
  plan.stderr_fd = err_.write_end.get();
  plan.fault_fd = fault_.write_end.get();
  plan.new_network = options_.without_network;
  plan.address_space_limit = options_.address_space_limit;
  plan.cpu_seconds_limit = options_.cpu_seconds_limit;
  plan.file_size_limit = options_.file_size_limit;
  if (!options_.working_directory.empty()) plan.working_directory = options_.working_directory.c_str();
  return {};
}

Result<> Child::start() {
  if (options_.argv.empty()) return fail(ErrorCode::invalid_argument, "run: empty argv");
  SpawnPlan plan;
  auto program = find_program(options_.argv[0]);
  if (!program) return fail(program.error());
  plan.program = program->c_str();
  std::vector<std::string> words = options_.argv;
  std::vector<char*> argv;
  for (auto& word : words) {
    if (word.find('\0') != std::string::npos) {
      return fail(ErrorCode::invalid_argument, "run: an argument of " + options_.argv[0] + " holds a NUL");
    }
    argv.push_back(word.data());
  }
  argv.push_back(nullptr);
  std::string path = "PATH=" + std::string(kSearchPath);
  std::string lang = "LANG=C.UTF-8";
  // Each thread's malloc arena reserves 64 MiB of addresses: without this, qemu-img's threads alone
  // break a limit of 1 GiB now and then (measured: 16 of 40 runs, none with it).
  std::string arenas = "MALLOC_ARENA_MAX=1";
  std::vector<std::string> more = options_.environment;
  std::vector<char*> environment{path.data(), lang.data()};
  if (options_.address_space_limit != 0) environment.push_back(arenas.data());
  for (auto& one : more) environment.push_back(one.data());
  environment.push_back(nullptr);
  plan.argv = argv.data();
  plan.environment = environment.data();
  if ((options_.without_network || !options_.run_as_user.empty()) && ::geteuid() != 0) {
    return fail(ErrorCode::permission_denied, "run " + words[0] + ": another user or network needs root");
  }
  if (!options_.run_as_user.empty()) {
    if (auto done = look_up_user(options_.run_as_user, plan); !done) return done;
  }
  if (auto done = prepare(plan); !done) return done;
  auto pid = spawn(plan);
  if (!pid) return fail(pid.error());
  pid_ = *pid;
  stdin_ = std::move(in_.write_end);
  stdout_ = std::move(out_.read_end);
  stderr_ = std::move(err_.read_end);
  failure_ = std::move(fault_.read_end);
  // Our copies of the child's ends must go, or end-of-file never comes.
  for (auto* pipe : {&in_, &out_, &err_, &fault_}) *pipe = Pipe{};
  pidfd_ = Fd(::pidfd_open(pid_, 0));
  if (!pidfd_.is_open()) return fail(errno_error("pidfd_open", errno));
  if (options_.input.empty()) stdin_.close();
  return {};
}

/// Reads one buffer of what is there; closes `fd` at end-of-file. False if there was nothing.
/// One buffer a round: an endless writer must not keep us from the deadline.
bool Child::drain(Fd& fd, std::string& into, bool is_stdout) {
  if (!fd.is_open()) return false;
  std::array<char, 32 * 1024> buffer;
  const ssize_t got = ::read(fd.get(), buffer.data(), buffer.size());
  if (got < 0 && (errno == EINTR || errno == EAGAIN)) return errno == EINTR;
  if (got <= 0) {
    fd.close();
    return false;
  }
  const std::string_view piece(buffer.data(), static_cast<std::size_t>(got));
  if (is_stdout && options_.on_stdout) options_.on_stdout(piece);
  if (into.size() < options_.output_limit) into.append(piece.substr(0, options_.output_limit - into.size()));
  return true;
}

/// Keeps a write to a closed pipe from killing a program that did not ignore SIGPIPE.
class SigpipeBlocked {
 public:
  SigpipeBlocked() {
    ::sigemptyset(&pipe_);
    ::sigaddset(&pipe_, SIGPIPE);
    ::pthread_sigmask(SIG_BLOCK, &pipe_, &before_);
  }
  SigpipeBlocked(const SigpipeBlocked&) = delete;
  SigpipeBlocked& operator=(const SigpipeBlocked&) = delete;
  ~SigpipeBlocked() {
    const timespec now{};
    ::sigtimedwait(&pipe_, nullptr, &now);  // takes the one we may have caused
    ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }

 private:
  sigset_t pipe_{}, before_{};
};

void Child::write_input() {
  const SigpipeBlocked blocked;
  while (stdin_.is_open()) {
    const auto rest = std::string_view(options_.input).substr(input_done_);
    const ssize_t wrote = rest.empty() ? 0 : ::write(stdin_.get(), rest.data(), rest.size());
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0 && errno == EAGAIN) return;
    if (wrote <= 0) {
      stdin_.close();  // all written, or the child does not want it (EPIPE)
      return;
    }
    input_done_ += static_cast<std::size_t>(wrote);
  }
}

int Child::reap() {
  int status = 0;
  while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

Result<ProcessResult> Child::finish() {
  // The child is a zombie, so its group id is still its own: whatever it left behind in it goes too,
  // and holds no pipe open.
  kill_group();
  result_.exit_code = reap();
  // A pipe holds 64 KiB, so this reads all the child wrote, and ends even if a process that left
  // the group goes on writing.
  for (int round = 0; round < 8; ++round) {
    const bool out = drain(stdout_, result_.out, true);
    const bool err = drain(stderr_, result_.err, false);
    if (!out && !err) break;
  }
  drain(failure_, fault_text_, false);
  if (auto fault = spawn_fault(fault_text_)) return fail(*fault, "run " + options_.argv[0]);
  return std::move(result_);
}

Result<ProcessResult> Child::wait() {
  // The callback may run on any thread; an eventfd write is all it does.
  const int event = stop_event_.get();
  const std::stop_callback wake(stop_, [event] { ::eventfd_write(event, 1); });
  const auto deadline = SteadyClock::now() + options_.timeout;
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - SteadyClock::now()).count();
    if (stop_.stop_requested()) {
      return fail(ErrorCode::cancelled, options_.argv[0] + " was stopped: somebody cancelled it");
    }
    if (left <= 0) {
      return fail(ErrorCode::timeout, options_.argv[0] + " was killed: not finished within " +
                                          std::to_string(options_.timeout.count()) + " ms");
    }
    // A negative descriptor is ignored by poll, so closed ones may stay in the list.
    std::array<pollfd, 6> watched{{{pidfd_.get(), POLLIN, 0},
                                   {stop_event_.get(), POLLIN, 0},
                                   {stdin_.get(), POLLOUT, 0},
                                   {stdout_.get(), POLLIN, 0},
                                   {stderr_.get(), POLLIN, 0},
                                   {failure_.get(), POLLIN, 0}}};
    const int wait_ms = static_cast<int>(std::min<long long>(left, 60'000));
    if (::poll(watched.data(), watched.size(), wait_ms) < 0 && errno != EINTR) {
      return fail(errno_error("poll", errno));
    }
    if (watched[2].revents != 0) write_input();
    if (watched[3].revents != 0) drain(stdout_, result_.out, true);
    if (watched[4].revents != 0) drain(stderr_, result_.err, false);
    if (watched[5].revents != 0) drain(failure_, fault_text_, false);
    if (watched[0].revents != 0) return finish();
  }
}

std::string last_lines(std::string_view text) {
  while (text.ends_with('\n')) text.remove_suffix(1);
  constexpr std::size_t kShown = 600;
  if (text.size() > kShown) {
    text.remove_prefix(text.size() - kShown);
    const auto line = text.find('\n');
    if (line != std::string_view::npos) text.remove_prefix(line + 1);
  }
  return std::string(text);
}

}  // namespace

Result<ProcessResult> run(const ProcessOptions& options, std::stop_token stop) {
  Child child(options, std::move(stop));
  if (auto started = child.start(); !started) return fail(started.error());
  return child.wait();
}

Result<std::string> run_checked(const ProcessOptions& options, std::stop_token stop) {
  auto result = run(options, std::move(stop));
  if (!result) return fail(result.error());
  if (result->exit_code != 0) {
    return fail(ErrorCode::internal, options.argv[0] + " failed with exit code " +
                                         std::to_string(result->exit_code) + ": " + last_lines(result->err));
  }
  return std::move(result->out);
}

}  // namespace educloud::sys
