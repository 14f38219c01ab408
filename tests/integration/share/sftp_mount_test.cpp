#include "common/share/sftp_mount.hpp"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <thread>

#include "common/share/mounts.hpp"
#include "common/sys/file.hpp"
#include "common/sys/process.hpp"
#include "integration/bus/test_broker.hpp"
#include "support/temp_dir.hpp"

namespace educloud::share {
namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;

bool eventually(const std::function<bool()>& condition, std::chrono::seconds patience = 60s) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (std::chrono::steady_clock::now() < deadline) {
    if (condition()) return true;
    std::this_thread::sleep_for(20ms);
  }
  return false;
}

/// Pids whose parent is `parent`, and theirs.
std::vector<pid_t> descendants(pid_t parent) {
  std::vector<pid_t> all;
  auto listed = sys::run_checked({.argv = {"ps", "-o", "pid=", "--ppid", std::to_string(parent)}});
  std::istringstream words(listed.value_or(""));
  for (pid_t pid = 0; words >> pid;) {
    all.push_back(pid);
    for (const pid_t below : descendants(pid)) all.push_back(below);
  }
  return all;
}

/// An sshd of the test's own that serves files only, on loopback.
class OwnSshd {
 public:
  explicit OwnSshd(const testing::TempDir& dir) : dir_(dir), port_(test::free_port()) {
    (void)sys::make_directories("/run/sshd");
    for (const char* key : {"host", "client"}) {
      const auto file = (dir_ / key).string();
      auto made = sys::run_checked({.argv = {"ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file}});
      EXPECT_TRUE(made) << made.error().message;
    }
    const auto host_key = *sys::read_file(dir_ / "host.pub");
    dir_.write("known_hosts", std::string(SftpMount::kHostAlias) + " " + host_key);
    fs::copy_file(dir_ / "client.pub", dir_ / "authorized_keys");
    dir_.write("sshd_config",
               "Port " + std::to_string(port_) + "\nListenAddress 127.0.0.1\nHostKey " +
                   (dir_ / "host").string() + "\nAuthorizedKeysFile " + (dir_ / "authorized_keys").string() +
                   "\nStrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
                   "PermitRootLogin prohibit-password\nForceCommand internal-sftp\n"
                   "Subsystem sftp internal-sftp\nPidFile " +
                   (dir_ / "pid").string() + "\n");
  }
  ~OwnSshd() { kill(); }

  void start() {
    thread_ = std::jthread([this](std::stop_token stop) {
      (void)sys::run(
          {.argv = {"/usr/sbin/sshd", "-D", "-e", "-f", (dir_ / "sshd_config").string()}, .timeout = 1h},
          stop);
    });
    ASSERT_TRUE(eventually([&] { return fs::exists(dir_ / "pid"); }));
  }
  /// The server, and what serves those who are connected.
  void kill() {
    if (!thread_.joinable()) return;
    const auto pid = static_cast<pid_t>(std::stol(sys::read_file(dir_ / "pid").value_or("0")));
    auto sessions = pid > 0 ? descendants(pid) : std::vector<pid_t>();
    thread_.request_stop();
    thread_.join();
    for (const pid_t session : sessions) ::kill(session, SIGKILL);
    fs::remove(dir_ / "pid");
  }
  SftpMount::Options options(const std::string& folder, const fs::path& at) const {
    SftpMount::Options made;
    made.host = "127.0.0.1";
    made.port = port_;
    made.user = "root";
    made.folder = folder;
    made.at = at;
    made.key_file = dir_ / "client";
    made.known_hosts_file = dir_ / "known_hosts";
    made.every = 200ms;
    return made;
  }

 private:
  const testing::TempDir& dir_;
  const int port_;
  std::jthread thread_;
};

class SftpMounts : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(::geteuid(), 0u) << "mounting needs root";
    fs::create_directories(dir_ / "there");
    dir_.write("there/x", "hello");
    sshd_.start();
  }
  void TearDown() override {
    mount_.reset();
    for (const pid_t pid : servers()) ::kill(pid, SIGKILL);
    EXPECT_TRUE(detach(at_));
    EXPECT_TRUE(detach(dir_ / "read-only"));
  }
  void mount() {
    mount_ = std::make_unique<SftpMount>(sshd_.options((dir_ / "there").string(), at_));
    mount_->start();
  }
  bool is_healthy() {
    return eventually([&] { return mount_->is_healthy(); });
  }
  std::vector<pid_t> servers() {
    std::vector<pid_t> all;
    auto listed = sys::run_checked({.argv = {"ps", "-C", "sshfs", "-o", "pid=,args="}});
    std::istringstream lines(listed.value_or(""));
    for (std::string line; std::getline(lines, line);) {
      if (line.find(at_.string()) != line.npos) all.push_back(static_cast<pid_t>(std::stol(line)));
    }
    return all;
  }
  std::string content(const fs::path& file) {
    auto text = sys::read_file(file);
    return text ? *text : text.error().message;
  }

  testing::TempDir dir_;
  const fs::path at_ = dir_ / "here";
  OwnSshd sshd_{dir_};
  std::unique_ptr<SftpMount> mount_;
};

TEST_F(SftpMounts, MountsAndWritesThrough) {
  mount();
  ASSERT_TRUE(is_healthy()) << mount_->problem();
  EXPECT_EQ(content(at_ / "x"), "hello");
  std::ofstream(at_ / "y") << "back";
  EXPECT_EQ(content(dir_ / "there/y"), "back");
  EXPECT_EQ(*look(at_, 5s), "directory");
  EXPECT_EQ(look(at_ / "none", 5s).error().code, ErrorCode::not_found);
  ASSERT_TRUE(make_folder(at_ / "new", 5s));
  EXPECT_TRUE(make_folder(at_ / "new", 5s));
  struct stat info {};
  ASSERT_EQ(::stat((dir_ / "there/new").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700u);
  fs::create_directory_symlink("/etc", dir_ / "there/out");
  EXPECT_EQ(*look(at_ / "out", 5s), "symbolic link");
}

TEST_F(SftpMounts, AnotherProcessTakesItOver) {
  mount();
  ASSERT_TRUE(is_healthy());
  const auto before = servers();
  ASSERT_EQ(before.size(), 1u);
  mount_.reset();
  EXPECT_EQ(content(at_ / "x"), "hello");
  mount();
  ASSERT_TRUE(is_healthy());
  EXPECT_EQ(servers(), before);
}

TEST_F(SftpMounts, ComesBackWithTheServer) {
  mount();
  ASSERT_TRUE(is_healthy());
  const auto before = servers();
  std::ifstream open_file(at_ / "x");
  sshd_.kill();
  ASSERT_TRUE(eventually([&] { return !mount_->is_healthy(); }));
  sshd_.start();
  ASSERT_TRUE(is_healthy()) << mount_->problem();
  EXPECT_EQ(servers(), before) << "guests would lose it";
  EXPECT_EQ(content(at_ / "x"), "hello");
}

TEST_F(SftpMounts, AKilledSshfsIsReplaced) {
  mount();
  ASSERT_TRUE(is_healthy());
  const auto before = servers();
  for (const pid_t pid : before) ::kill(pid, SIGKILL);
  ASSERT_TRUE(eventually([&] { return !servers().empty() && servers() != before && mount_->is_healthy(); }));
  EXPECT_EQ(content(at_ / "x"), "hello");
}

TEST_F(SftpMounts, AStuckOneHoldsNobody) {
  auto options = sshd_.options((dir_ / "there").string(), at_);
  options.patience = 2s;
  options.give_up = 4s;
  mount_ = std::make_unique<SftpMount>(options);
  mount_->start();
  ASSERT_TRUE(is_healthy());
  const auto stuck = servers();
  for (const pid_t pid : stuck) ::kill(pid, SIGSTOP);
  ASSERT_TRUE(eventually([&] { return !mount_->is_healthy(); }));
  const auto begun = std::chrono::steady_clock::now();
  EXPECT_EQ(look(at_ / "x", 500ms).error().code, ErrorCode::timeout);
  EXPECT_LT(std::chrono::steady_clock::now() - begun, 5s);
  ASSERT_TRUE(is_healthy()) << "killed and mounted anew";
  EXPECT_NE(servers(), stuck);
  EXPECT_EQ(content(at_ / "x"), "hello");
}

TEST_F(SftpMounts, ANewKeyOfTheServerIsRefused) {
  dir_.write("known_hosts", std::string(SftpMount::kHostAlias) + " " + *sys::read_file(dir_ / "client.pub"));
  mount();
  ASSERT_TRUE(eventually([&] { return mount_->problem().starts_with("it cannot be mounted"); }));
  EXPECT_FALSE(mount_at(at_));
}

TEST_F(SftpMounts, ReadOnlyOnceMore) {
  mount();
  ASSERT_TRUE(is_healthy());
  const auto target = dir_ / "read-only";
  const auto bound = in_host_mounts([&] { return bind_read_only(at_, target); });
  ASSERT_TRUE(bound) << bound.error().message;
  EXPECT_TRUE(bind_read_only(at_, target));
  EXPECT_EQ(content(target / "x"), "hello");
  std::ofstream denied(target / "z");
  EXPECT_FALSE(denied.is_open());
  std::ofstream allowed(at_ / "z");
  EXPECT_TRUE(allowed.is_open());
}

TEST_F(SftpMounts, ReadOnlyOfAFolderThatWasMadeAnew) {
  const auto source = dir_ / "local", target = dir_ / "seen";
  const auto make = [&](const std::string& text) {
    std::filesystem::create_directories(source);
    std::ofstream(source / "x") << text;
  };
  make("old");
  ASSERT_TRUE(bind_read_only(source, target));
  std::filesystem::remove_all(source);
  make("new");
  ASSERT_TRUE(bind_read_only(source, target));
  EXPECT_EQ(testing::slurp(target / "x"), "new");
  EXPECT_TRUE(detach(target));
}

}  // namespace
}  // namespace educloud::share
