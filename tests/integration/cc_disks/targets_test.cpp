#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include <fstream>
#include <thread>

#include "cc/disks/iscsi_targets.hpp"
#include "integration/cc_disks/initiator.hpp"

namespace educloud::test {
namespace {

const std::string kSecret = "abcdefghijkl0123456789AB";

template <class Condition>
bool eventually(Condition condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds{60};
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds{20});
  }
  return true;
}

class Targets : public ::testing::Test {
 protected:
  Targets() { targets_.emplace(options()); }
  cc::IscsiTargets::Options options() {
    cc::IscsiTargets::Options out;
    out.port = port_;
    out.run_dir = dir_ / "run";
    return out;
  }
  cc::IscsiTarget target(const std::string& insid, const std::string& secret = kSecret) {
    const auto file = dir_ / insid;
    if (!std::filesystem::exists(file)) {
      std::ofstream(file).flush();
      std::filesystem::resize_file(file, 8 << 20);
    }
    return {*InstanceId::parse(insid), file, "127.0.0.1", secret};
  }
  Initiator initiator(const std::string& insid, const std::string& secret = kSecret) {
    return {port_, cc::IscsiTargets::iqn(*InstanceId::parse(insid)), insid, secret};
  }
  std::string bytes(const std::string& insid, std::size_t offset, std::size_t count) {
    return testing::slurp(dir_ / insid).substr(offset, count);
  }
  /// The tgtd whose command line names our port.
  pid_t tgtd() {
    for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
      const auto name = entry.path().filename().string();
      if (name.find_first_not_of("0123456789") != std::string::npos) continue;
      const auto line = testing::slurp(entry.path() / "cmdline");
      if (line.starts_with("tgtd") && line.find(":" + std::to_string(port_)) != std::string::npos) {
        return std::stoi(name);
      }
    }
    return 0;
  }

  const testing::TempDir dir_;
  const int port_ = free_port();
  std::optional<cc::IscsiTargets> targets_;
};

TEST_F(Targets, OnlyTheRightSecretReadsAndWrites) {
  auto opened = targets_->open(target("VS00000001"));
  ASSERT_TRUE(opened) << opened.error().message;
  ASSERT_TRUE(targets_->open(target("VS00000001")));  // again: nothing happens
  const auto good = initiator("VS00000001");
  auto done = good.io({"write -P 7 64k 64k", "read -P 7 64k 64k", "read -P 0 0 64k"});
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_EQ(bytes("VS00000001", 65536, 65536), std::string(65536, '\7'));
  auto wrong = initiator("VS00000001", "abcdefghijkl0123456789AX").io({"read 0 64k"});
  ASSERT_FALSE(wrong);
  EXPECT_NE(wrong.error().message.find("Authentication failure"), std::string::npos) << wrong.error().message;
  // Another instance's secret does not open this one.
  ASSERT_TRUE(targets_->open(target("VS00000002", "ZZcdefghijkl0123456789AB")));
  Initiator other(port_, cc::IscsiTargets::iqn(*InstanceId::parse("VS00000001")), "VS00000002",
                  "ZZcdefghijkl0123456789AB");
  EXPECT_FALSE(other.io({"read 0 64k"}));
  // No secret is on a command line.
  EXPECT_EQ(testing::slurp("/proc/" + std::to_string(tgtd()) + "/cmdline").find(kSecret), std::string::npos);
  auto changed = targets_->open(target("VS00000001", "ZZcdefghijkl0123456789AB"));
  ASSERT_FALSE(changed);
  EXPECT_EQ(changed.error().code, ErrorCode::conflict);
}

TEST_F(Targets, AnInitiatorOfAnotherAddressIsRefused) {
  auto elsewhere = target("VS00000001");
  elsewhere.address = "10.99.0.1";
  ASSERT_TRUE(targets_->open(elsewhere));
  EXPECT_FALSE(initiator("VS00000001").io({"read 0 64k"}));
}

TEST_F(Targets, WhatWasWrittenIsOnTheDiskAtOnce) {
  ASSERT_TRUE(targets_->open(target("VS00000001")));
  // The backing file is open with O_SYNC: so says the kernel, of tgtd's own descriptor.
  bool is_sync = false;
  const auto fds = std::filesystem::path("/proc/" + std::to_string(tgtd()) + "/fd");
  for (const auto& entry : std::filesystem::directory_iterator(fds)) {
    std::error_code gone;
    if (std::filesystem::read_symlink(entry.path(), gone) != dir_ / "VS00000001") continue;
    const auto info = testing::slurp(fds.parent_path() / "fdinfo" / entry.path().filename());
    const auto at = info.find("flags:");
    ASSERT_NE(at, std::string::npos);
    is_sync = (std::stoul(info.substr(at + 6), nullptr, 8) & O_SYNC) == O_SYNC;
  }
  EXPECT_TRUE(is_sync);
}

TEST_F(Targets, AKilledTgtdComesBackWithItsTargetsAndData) {
  ASSERT_TRUE(targets_->open(target("VS00000001")));
  ASSERT_TRUE(targets_->open(target("TMP00000002")));
  const auto first = initiator("VS00000001");
  ASSERT_TRUE(first.io({"write -P 9 0 1M"}));
  const pid_t before = tgtd();
  ASSERT_GT(before, 0);
  ::kill(before, SIGKILL);
  EXPECT_TRUE(eventually([&] { return first.io({"read -P 9 0 1M"}).has_value(); }));
  EXPECT_TRUE(eventually([&] { return initiator("TMP00000002").io({"read -P 0 0 1M"}).has_value(); }));
  EXPECT_NE(tgtd(), before);
}

TEST_F(Targets, ANewServiceServesTheSameData) {
  ASSERT_TRUE(targets_->open(target("VS00000001")));
  ASSERT_TRUE(initiator("VS00000001").io({"write -P 5 0 64k"}));
  targets_.reset();
  EXPECT_EQ(tgtd(), 0);
  targets_.emplace(options());
  auto opened = targets_->open(target("VS00000001"));
  ASSERT_TRUE(opened) << opened.error().message;
  auto read = initiator("VS00000001").io({"read -P 5 0 64k"});
  EXPECT_TRUE(read) << read.error().message;
}

TEST_F(Targets, ClosingCutsASessionThatWrites) {
  ASSERT_TRUE(targets_->open(target("VS00000001")));
  ASSERT_TRUE(targets_->open(target("VS00000002")));
  const auto writer = initiator("VS00000001");
  std::vector<std::string> writes;
  for (int i = 0; i < 4000; ++i) writes.push_back("write -q -P " + std::to_string(i % 250 + 1) + " 0 256k");
  std::stop_source stop;
  std::jthread guest([&] {
    (void)sys::run({.argv = writer.argv(writes), .timeout = std::chrono::seconds{120}}, stop.get_token());
  });
  ASSERT_TRUE(eventually([&] { return bytes("VS00000001", 0, 1) != std::string(1, '\0'); }));
  targets_->close(*InstanceId::parse("VS00000001"));
  const auto closed = bytes("VS00000001", 0, 256 << 10);
  // The initiator tries to come back; neither it nor anybody else reaches the file.
  EXPECT_FALSE(targets_->is_open(*InstanceId::parse("VS00000001")));
  Initiator late = initiator("VS00000002");
  auto other = late.io({"write -P 3 0 1M", "read -P 3 0 1M"});
  EXPECT_TRUE(other) << other.error().message;
  EXPECT_EQ(bytes("VS00000001", 0, 256 << 10), closed);
  stop.request_stop();
  guest.join();
  // With a new secret it opens again; the old one is of no use.
  auto opened = targets_->open(target("VS00000001", "ZZcdefghijkl0123456789AB"));
  ASSERT_TRUE(opened) << opened.error().message;
  EXPECT_FALSE(writer.io({"read 0 64k"}));
  EXPECT_TRUE(initiator("VS00000001", "ZZcdefghijkl0123456789AB").io({"read 0 64k"}));
  targets_->close(*InstanceId::parse("VS00000009"));  // was never open
}

TEST_F(Targets, WhoMayLogInChangesUnderARunningSession) {
  const auto disk = target("VS00000001");
  ASSERT_TRUE(targets_->open(disk));
  const auto writer = initiator("VS00000001");
  std::vector<std::string> writes;
  for (int i = 0; i < 4000; ++i) writes.push_back("write -q -P " + std::to_string(i % 250 + 1) + " 0 256k");
  std::stop_source stop;
  std::jthread guest([&] {
    (void)sys::run({.argv = writer.argv(writes), .timeout = std::chrono::seconds{120}}, stop.get_token());
  });
  const auto writes_on = [&] {
    const auto before = bytes("VS00000001", 0, 1);
    return eventually([&] { return bytes("VS00000001", 0, 1) != before; });
  };
  ASSERT_TRUE(writes_on());
  const auto joined = targets_->set_initiators(disk.instance, disk.address, "127.0.0.9");
  ASSERT_TRUE(joined) << joined.error().message;
  EXPECT_TRUE(writes_on()) << "the one that has it goes on";
  EXPECT_TRUE(writer.io({"read 1M 64k"}));
  const auto kept = targets_->set_initiators(disk.instance, "127.0.0.9", "");
  ASSERT_TRUE(kept) << kept.error().message;
  const auto left = bytes("VS00000001", 0, 256 << 10);
  EXPECT_FALSE(writer.io({"read 1M 64k"})) << "its address has no business here any more";
  EXPECT_EQ(bytes("VS00000001", 0, 256 << 10), left);
  stop.request_stop();
  guest.join();
  // Back, as after a move that was taken back; the disk was there all the while.
  ASSERT_TRUE(targets_->set_initiators(disk.instance, "127.0.0.1", ""));
  EXPECT_TRUE(writer.io({"read 1M 64k"}));
  EXPECT_EQ(targets_->set_initiators(*InstanceId::parse("VS00000009"), "127.0.0.1", "").error().code,
            ErrorCode::not_found);
}

TEST_F(Targets, WhatTgtdWasToldInVainIsDoneByTheNextTry) {
  const auto disk = target("VS00000001");
  ASSERT_TRUE(targets_->open(disk));
  const auto here = initiator("VS00000001");
  const auto socket = dir_ / "run/tgtd.0", away = dir_ / "run/away";
  const auto set_twice = [&](const std::string& address, const std::string& also) {
    std::filesystem::rename(socket, away);
    const auto in_vain = targets_->set_initiators(disk.instance, address, also);
    std::filesystem::rename(away, socket);
    ASSERT_FALSE(in_vain);
    EXPECT_EQ(in_vain.error().code, ErrorCode::unavailable);
    for (int again = 0; again < 2; ++again) {
      const auto done = targets_->set_initiators(disk.instance, address, also);
      ASSERT_TRUE(done) << done.error().message;
    }
  };
  set_twice("127.0.0.9", "");
  EXPECT_FALSE(here.io({"read 0 64k"})) << "the node before is out, though the first try failed";
  set_twice("127.0.0.9", "127.0.0.1");
  EXPECT_TRUE(here.io({"read 0 64k"})) << "who joins is let in";
  set_twice("127.0.0.9", "");
  EXPECT_FALSE(here.io({"read 0 64k"})) << "who left is out";
  // A tgtd that does not answer in time does it all the same, later.
  const pid_t before = tgtd();
  ::kill(before, SIGSTOP);
  EXPECT_FALSE(targets_->set_initiators(disk.instance, "127.0.0.1", ""));
  ::kill(before, SIGCONT);
  EXPECT_TRUE(
      eventually([&] { return targets_->set_initiators(disk.instance, "127.0.0.1", "").has_value(); }));
  EXPECT_TRUE(here.io({"read 0 64k"}));
  // A new tgtd knows nobody but who is wanted; the one before it is forgotten.
  ::kill(before, SIGKILL);
  EXPECT_TRUE(eventually([&] { return here.io({"read 0 64k"}).has_value(); }));
  EXPECT_NE(tgtd(), before);
  set_twice("127.0.0.9", "");
  EXPECT_FALSE(here.io({"read 0 64k"}));
}

TEST_F(Targets, OpenedAgainOnlyWhoMayIsIn) {
  auto disk = target("VS00000001");
  ASSERT_TRUE(targets_->open(disk));
  const auto here = initiator("VS00000001");
  const auto socket = dir_ / "run/tgtd.0", away = dir_ / "run/away";
  std::filesystem::rename(socket, away);
  EXPECT_FALSE(targets_->set_initiators(disk.instance, "127.0.0.9", ""));
  std::filesystem::rename(away, socket);
  EXPECT_TRUE(here.io({"read 0 64k"})) << "tgtd has not heard of it";
  disk.address = "127.0.0.9";
  const auto again = targets_->open(disk);
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_FALSE(here.io({"read 0 64k"}));
}

TEST_F(Targets, AFileThatIsNotThereIsAnErrorAndHarmsNoOther) {
  ASSERT_TRUE(targets_->open(target("VS00000001")));
  auto missing = target("VS00000002");
  std::filesystem::remove(missing.file);
  EXPECT_FALSE(targets_->open(missing));
  EXPECT_FALSE(targets_->is_open(missing.instance));
  EXPECT_TRUE(initiator("VS00000001").io({"read 0 64k"}));
  EXPECT_TRUE(targets_->open(target("VS00000002")));
}

TEST_F(Targets, WhatIsNoSecretOrAddressIsRefused) {
  auto bad = target("VS00000001", "short");
  EXPECT_EQ(targets_->open(bad).error().code, ErrorCode::invalid_argument);
  bad = target("VS00000001", "abcdefghijkl,path=/etc/x");
  EXPECT_EQ(targets_->open(bad).error().code, ErrorCode::invalid_argument);
  bad = target("VS00000001");
  bad.address = "ALL";
  EXPECT_EQ(targets_->open(bad).error().code, ErrorCode::invalid_argument);
  bad.address = "127.0.0.1,x=y";
  EXPECT_EQ(targets_->open(bad).error().code, ErrorCode::invalid_argument);
}

}  // namespace
}  // namespace educloud::test
