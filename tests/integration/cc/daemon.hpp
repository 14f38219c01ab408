#pragma once

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <vector>

namespace educloud::test {

/// A program of ours as a process of its own, stopped by its pid.
class Daemon {
 public:
  Daemon(std::string program, std::filesystem::path config)
      : program_(std::move(program)), config_(std::move(config)) {}
  ~Daemon() { kill(); }
  Daemon(const Daemon&) = delete;
  Daemon& operator=(const Daemon&) = delete;

  /// From the test's main thread: the program dies with the thread that started it (PDEATHSIG).
  void start() {
    const std::string config = config_.string();
    pid_ = ::fork();
    if (pid_ != 0) return;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::execl(program_.c_str(), program_.c_str(), "--config", config.c_str(), static_cast<char*>(nullptr));
    ::_exit(127);
  }
  /// kill -9.
  void kill() {
    if (pid_ > 0) end(SIGKILL);
  }
  /// SIGTERM. Returns the exit code, or 128 + signal.
  int stop() { return end(SIGTERM); }
  bool runs() const { return pid_ > 0; }

 private:
  int end(int signal) {
    ::kill(pid_, signal);
    int status = 0;
    ::waitpid(pid_, &status, 0);
    pid_ = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

  std::string program_;
  std::filesystem::path config_;
  pid_t pid_ = 0;
};

}  // namespace educloud::test
