#include "integration/nc/own_libvirtd.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <thread>

#include "support/paths.hpp"

namespace educloud::nc {

OwnLibvirtd::OwnLibvirtd() {
  char pattern[] = "/tmp/educloud-libvirtd-XXXXXX";
  directory_ = mkdtemp(pattern);
}

OwnLibvirtd::~OwnLibvirtd() {
  for (const auto& entry : std::filesystem::directory_iterator(directory_ / "run/qemu")) {
    if (entry.path().extension() != ".pid") continue;
    if (const pid_t guest = guest_pid(entry.path().stem())) kill(guest, SIGKILL);
  }
  kill_hard();
  std::error_code ignored;
  std::filesystem::remove_all(directory_, ignored);
}

bool OwnLibvirtd::is_possible() {
  return geteuid() == 0 && access("/usr/sbin/libvirtd", X_OK) == 0 &&
         access("/usr/bin/qemu-system-x86_64", X_OK) == 0;
}

std::string OwnLibvirtd::uri() const {
  return "qemu+unix:///system?socket=" + (directory_ / "run/libvirt-sock").string();
}

bool OwnLibvirtd::start() {
  const std::string script = test::source_dir() / "scripts/lib/libvirtd";
  pid_ = fork();
  if (pid_ == 0) {
    setsid();
    const int log = open((directory_ / "log.txt").c_str(), O_CREAT | O_WRONLY | O_APPEND, 0600);
    dup2(log, 1);
    dup2(log, 2);
    execl(script.c_str(), script.c_str(), "exec", directory_.c_str(), static_cast<char*>(nullptr));
    _exit(127);
  }
  for (int i = 0; i < 300; ++i) {
    if (std::filesystem::exists(directory_ / "run/libvirt-sock")) return true;
    if (waitpid(pid_, nullptr, WNOHANG) == pid_) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds{50});
  }
  return false;
}

void OwnLibvirtd::kill_hard() {
  if (pid_ <= 0) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
  pid_ = -1;
  std::error_code ignored;
  std::filesystem::remove(directory_ / "run/libvirt-sock", ignored);
}

pid_t OwnLibvirtd::guest_pid(const std::string& name) const {
  std::ifstream file(directory_ / "run/qemu" / (name + ".pid"));
  pid_t pid = 0;
  file >> pid;
  return pid;
}

}  // namespace educloud::nc
