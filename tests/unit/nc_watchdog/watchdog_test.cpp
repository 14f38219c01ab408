#include "nc/watchdog/watchdog.hpp"

#include <gmock/gmock.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>

#include "common/sys/file.hpp"
#include "nc/app/lease_file.hpp"
#include "support/fault.hpp"
#include "support/temp_dir.hpp"

namespace educloud::nc {
namespace {

const InstanceId kServer = *InstanceId::parse("VS0000beef");

/// A process that looks like QEMU with that guest; it waits on a pipe until it is killed or we end.
class Guest {
 public:
  explicit Guest(const std::string& name, const char* program = "/usr/bin/qemu-system-x86_64") {
    int ends[2];
    if (::pipe(ends) != 0) return;
    const std::string option = "guest=" + name + ",debug-threads=on";
    pid_ = ::fork();
    if (pid_ == 0) {
      ::dup2(ends[0], 0);
      ::close(ends[1]);
      ::execl("/bin/sh", program, "-c", "read line", "-name", option.c_str(), static_cast<char*>(nullptr));
      ::_exit(127);
    }
    ::close(ends[0]);
    keep_ = sys::Fd(ends[1]);
    // Until the exec it is still us.
    while (sys::read_file("/proc/" + std::to_string(pid_) + "/cmdline").value_or("").find("read line") ==
           std::string::npos) {
      ::usleep(1000);
    }
  }
  ~Guest() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  /// Waits for its end; the signal that ended it.
  int killed_by() {
    int status = 0;
    ::waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  }
  bool is_up() const { return ::waitpid(pid_, nullptr, WNOHANG) == 0; }
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = -1;
  sys::Fd keep_;
};

class WatchdogTest : public ::testing::Test {
 protected:
  Watchdog make() {
    return Watchdog(
        {.state_dir = folder_.path()},
        [this](const InstanceId& insid) {
          asked_.push_back(insid.str());
          return destroy_ ? destroy_() : fail(ErrorCode::timeout, "libvirtd does not answer");
        },
        clock_);
  }
  void grant() { ASSERT_TRUE(write_lease_file(folder_.path(), clock_.boot_ms())); }
  void pass(int seconds) { clock_.advance(std::chrono::seconds{seconds}); }

  testing::TempDir folder_;
  ManualClock clock_;
  std::function<Result<>()> destroy_;
  std::vector<std::string> asked_;
};

TEST_F(WatchdogTest, EndsTheServerThatOutlivedItsLease) {
  Guest server("VS0000beef"), other("VS0000cafe");
  ASSERT_TRUE(note_exclusive(folder_.path(), kServer));
  auto watchdog = make();
  grant();
  pass(50);
  educloud::test::injected("nc-stopped");
  EXPECT_EQ(watchdog.tick(), 0);
  EXPECT_TRUE(server.is_up());
  pass(1);
  EXPECT_EQ(watchdog.tick(), 1);
  EXPECT_EQ(server.killed_by(), SIGKILL);
  EXPECT_EQ(asked_, std::vector<std::string>{"VS0000beef"}) << "libvirt was asked first";
  EXPECT_TRUE(other.is_up()) << "nobody noted that one";
  EXPECT_EQ(watchdog.tick(), 0) << "it is gone";
}

TEST_F(WatchdogTest, LeavesTheKillToLibvirtIfThatWorks) {
  Guest server("VS0000beef");
  ASSERT_TRUE(note_exclusive(folder_.path(), kServer));
  destroy_ = [&]() -> Result<> {
    ::kill(server.pid(), SIGTERM);
    EXPECT_EQ(server.killed_by(), SIGTERM);
    return {};
  };
  auto watchdog = make();
  pass(60);
  EXPECT_EQ(watchdog.tick(), 1);
}

TEST_F(WatchdogTest, AFreshLeaseOrOneOfABootBeforeThisOneIsNoReason) {
  Guest server("VS0000beef");
  ASSERT_TRUE(note_exclusive(folder_.path(), kServer));
  auto watchdog = make();
  pass(45);
  EXPECT_EQ(watchdog.tick(), 0) << "without a file it counts from its own start";
  ASSERT_TRUE(write_lease_file(folder_.path(), clock_.boot_ms() + 1'000'000));
  EXPECT_EQ(watchdog.tick(), 0);
  pass(10);
  EXPECT_EQ(watchdog.tick(), 1);
}

TEST_F(WatchdogTest, KillsNothingThatIsNotThatGuestsQemu) {
  Guest longer("VS0000beef1"), no_qemu("VS0000beef", "/bin/vim");
  std::ofstream(folder_.path() / "lease") << "not a number";
  std::filesystem::create_directories(folder_.path() / "exclusive");
  std::ofstream(folder_.path() / "exclusive" / "..%2f") << "";
  ASSERT_TRUE(note_exclusive(folder_.path(), kServer));
  auto watchdog = make();
  pass(600);
  EXPECT_EQ(watchdog.tick(), 0);
  EXPECT_TRUE(longer.is_up());
  EXPECT_TRUE(no_qemu.is_up());
}

TEST_F(WatchdogTest, WhatNcStruckOutIsNotLookedFor) {
  Guest server("VS0000beef");
  ASSERT_TRUE(note_exclusive(folder_.path(), kServer));
  EXPECT_EQ(read_exclusive(folder_.path()).size(), 1u);
  strike_exclusive(folder_.path(), kServer);
  auto watchdog = make();
  pass(600);
  EXPECT_EQ(watchdog.tick(), 0);
  EXPECT_TRUE(server.is_up());
}

}  // namespace
}  // namespace educloud::nc
