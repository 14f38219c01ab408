#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <condition_variable>
#include <mutex>
#include <random>
#include <thread>

#include "common/sys/file.hpp"
#include "common/sys/process.hpp"
#include "nc/cache/nbd_export.hpp"
#include "nc/cache/nbd_export_protocol.hpp"
#include "support/temp_dir.hpp"

namespace educloud::nc {
namespace {

using ::testing::HasSubstr;

/// A disk in memory; reads of its second half wait until they are let through.
class MemoryDisk : public NodeCache::Reader {
 public:
  explicit MemoryDisk(std::string content) : content_(std::move(content)) {}
  std::uint64_t disk_bytes() const override { return content_.size(); }
  bool is_complete() const override { return true; }
  Result<> read(std::uint64_t offset, std::span<char> out, std::stop_token stop) override {
    std::unique_lock lock(mutex_);
    const bool held = held_ && offset >= content_.size() / 2;
    if (held && !changed_.wait(lock, stop, [&] { return !held_; })) {
      return fail(ErrorCode::cancelled, "stopped");
    }
    if (broken_) return fail(ErrorCode::corrupt, "broken");
    content_.copy(out.data(), out.size(), offset);
    return {};
  }
  void hold(bool held) {
    const std::lock_guard lock(mutex_);
    held_ = held;
    changed_.notify_all();
  }
  void break_it() {
    const std::lock_guard lock(mutex_);
    broken_ = true;
  }
  const std::string& content() const { return content_; }

 private:
  std::mutex mutex_;
  std::condition_variable_any changed_;
  const std::string content_;
  bool held_ = false, broken_ = false;
};

std::string some_bytes(std::size_t size) {
  std::mt19937_64 random(7);
  std::string bytes(size, '\0');
  for (std::size_t i = 0; i + 8 <= size; i += 8) {
    const auto value = random();
    std::memcpy(bytes.data() + i, &value, 8);
  }
  return bytes;
}

/// A client that says what it wants, byte by byte.
class RawClient {
 public:
  explicit RawClient(const std::filesystem::path& path) : fd_(::socket(AF_UNIX, SOCK_STREAM, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.native().copy(address.sun_path, sizeof address.sun_path - 1);
    EXPECT_EQ(::connect(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    const timeval patience{30, 0};
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  }
  void say(std::string_view bytes) { ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL); }
  /// Up to `size` bytes; less once the server hung up.
  std::string hear(std::size_t size) {
    std::string got(size, '\0');
    std::size_t have = 0;
    while (have < size) {
      const auto n = ::recv(fd_.get(), got.data() + have, size - have, 0);
      if (n <= 0) break;
      have += static_cast<std::size_t>(n);
    }
    got.resize(have);
    return got;
  }
  bool is_cut() { return hear(1).empty(); }
  /// Into transmission, by the old way.
  void enter() {
    EXPECT_EQ(hear(18).size(), 18U);
    say(std::string("\0\0\0\3", 4));
    say("IHAVEOPT" + std::string("\0\0\0\1\0\0\0\4disk", 12));
    EXPECT_EQ(hear(10).size(), 10U);
  }
  void request(std::uint16_t type, char cookie, std::uint64_t offset, std::uint32_t length) {
    std::string out("\x25\x60\x95\x13", 4);
    const auto put = [&](std::uint64_t value, int bytes) {
      for (int i = bytes - 1; i >= 0; --i) out.push_back(static_cast<char>(value >> (i * 8) & 0xff));
    };
    put(0, 2);
    put(type, 2);
    out += std::string(7, '\0') + cookie;
    put(offset, 8);
    put(length, 4);
    say(out);
  }
  /// {error, cookie} of a simple reply.
  std::pair<int, char> reply() {
    const auto head = hear(16);
    if (head.size() != 16) return {-1, 0};
    return {static_cast<unsigned char>(head[7]), head[15]};
  }

 private:
  sys::Fd fd_;
};

class Nbd : public ::testing::Test {
 protected:
  void SetUp() override {
    auto served = NbdExport::serve(socket_, disk_);
    ASSERT_TRUE(served) << served.error().message;
    export_ = std::move(*served);
  }
  std::string uri() const { return "nbd+unix:///disk?socket=" + socket_.string(); }
  static std::string run(std::vector<std::string> argv) {
    auto out = sys::run_checked({.argv = std::move(argv)});
    EXPECT_TRUE(out) << out.error().message;
    return out ? *out : std::string{};
  }

  testing::TempDir folder_;
  const std::filesystem::path socket_ = folder_ / "disk.nbd";
  const std::shared_ptr<MemoryDisk> disk_ = std::make_shared<MemoryDisk>(some_bytes((5 << 20) + 512));
  std::unique_ptr<NbdExport> export_;
};

TEST_F(Nbd, RealClientsReadTheDisk) {
  const auto info = run({"nbdinfo", uri()});
  EXPECT_THAT(info, HasSubstr("export-size: " + std::to_string(disk_->content().size())));
  EXPECT_THAT(info, HasSubstr("is_read_only: true"));
  EXPECT_THAT(info, HasSubstr("can_multi_conn: true"));
  EXPECT_THAT(run({"nbdinfo", "--list", "nbd+unix:///?socket=" + socket_.string()}), HasSubstr("disk"));
  run({"nbdcopy", uri(), folder_ / "copy"});
  EXPECT_EQ(testing::slurp(folder_ / "copy"), disk_->content());
  run({"qemu-img", "convert", "-f", "raw", "-O", "raw", uri(), folder_ / "converted"});
  EXPECT_EQ(testing::slurp(folder_ / "converted"), disk_->content());
}

TEST_F(Nbd, AnOverlayOnItReadsThroughQemu) {
  run({"qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", uri(), folder_ / "overlay.qcow2",
       std::to_string(disk_->content().size())});
  run({"qemu-img", "convert", "-f", "qcow2", "-O", "raw", folder_ / "overlay.qcow2", folder_ / "flat"});
  EXPECT_EQ(testing::slurp(folder_ / "flat"), disk_->content());
}

TEST_F(Nbd, ARequestThatWaitsDoesNotHoldUpTheOthers) {
  disk_->hold(true);
  RawClient client(socket_);
  client.enter();
  client.request(0, 'w', disk_->content().size() / 2, 4096);
  client.request(0, 'a', 512, 1024);
  EXPECT_EQ(client.reply(), std::pair(0, 'a'));
  EXPECT_EQ(client.hear(1024), disk_->content().substr(512, 1024));
  disk_->hold(false);
  EXPECT_EQ(client.reply(), std::pair(0, 'w'));
}

TEST_F(Nbd, WhatIsNotARightReadIsRefusedAndTheConnectionGoesOn) {
  RawClient client(socket_);
  client.enter();
  const auto end = disk_->content().size();
  client.request(0, '1', end - 10, 11);
  EXPECT_EQ(client.reply(), std::pair(22, '1'));
  client.request(0, '2', UINT64_MAX, 1);
  EXPECT_EQ(client.reply(), std::pair(22, '2'));
  client.request(0, '3', 0, nbd::kMaxRequestBytes + 1);
  EXPECT_EQ(client.reply(), std::pair(22, '3'));
  client.request(1, '4', 0, 5);
  client.say("write");
  EXPECT_EQ(client.reply(), std::pair(1, '4'));
  client.request(4, '5', 0, 5);
  EXPECT_EQ(client.reply(), std::pair(1, '5'));
  client.request(77, '6', 0, 0);
  EXPECT_EQ(client.reply(), std::pair(22, '6'));
  client.request(0, '7', end - 10, 10);
  EXPECT_EQ(client.reply(), std::pair(0, '7'));
  EXPECT_EQ(client.hear(10), disk_->content().substr(end - 10));
  client.request(0, '8', 0, 4 << 20);  // more than a reader keeps
  EXPECT_EQ(client.reply(), std::pair(0, '8'));
  EXPECT_EQ(client.hear(4 << 20), disk_->content().substr(0, 4 << 20));
  disk_->break_it();
  client.request(0, '9', 0, 1);
  EXPECT_EQ(client.reply(), std::pair(5, '9'));
  client.request(2, '0', 0, 0);
  EXPECT_TRUE(client.is_cut());
}

TEST_F(Nbd, GarbageIsCut) {
  for (const std::string& garbage :
       {std::string("GET / HTTP/1.1\r\n\r\n"), std::string(100, '\xff'),
        std::string("\0\0\0\3IHAVEOPT\0\0\0\7\xff\xff\xff\xff", 20), std::string("\0\0\0\3") + "NOOPTION"}) {
    RawClient client(socket_);
    client.hear(18);
    client.say(garbage + std::string(64, '\0'));
    EXPECT_TRUE(client.is_cut()) << garbage;
  }
  RawClient client(socket_);
  client.enter();
  client.say(std::string(28, 'x'));
  EXPECT_TRUE(client.is_cut());
}

TEST_F(Nbd, UnknownOptionsAndNamesAreAnswered) {
  RawClient client(socket_);
  client.hear(18);
  client.say(std::string("\0\0\0\3", 4));
  client.say("IHAVEOPT" + std::string("\0\0\0\5\0\0\0\0", 8));  // STARTTLS
  EXPECT_EQ(client.hear(20).substr(12, 4), std::string("\x80\0\0\1", 4));
  client.say("IHAVEOPT" + std::string("\0\0\0\7\0\0\0\12\0\0\0\4none\0\0", 18));
  EXPECT_THAT(client.hear(20 + 25), HasSubstr("only export"));
  client.say("IHAVEOPT" + std::string("\0\0\0\7\0\0\0\6\0\0\0\100\0\0", 14));
  EXPECT_THAT(client.hear(20 + 21), HasSubstr("does not fit"));
  client.say("IHAVEOPT" + std::string("\0\0\0\2\0\0\0\0", 8));
  EXPECT_EQ(client.hear(20).substr(12, 4), std::string("\0\0\0\1", 4));
  EXPECT_TRUE(client.is_cut());
}

TEST_F(Nbd, TooManyConnectionsAreCutAndPlacesComeFree) {
  std::vector<std::unique_ptr<RawClient>> clients;
  for (int i = 0; i < NbdExport::kMaxConnections; ++i) {
    clients.push_back(std::make_unique<RawClient>(socket_));
    EXPECT_EQ(clients.back()->hear(18).size(), 18U);
  }
  EXPECT_TRUE(RawClient(socket_).is_cut());
  clients.pop_back();
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds{30};
  bool served = false;
  while (!served && std::chrono::steady_clock::now() < deadline) {
    served = RawClient(socket_).hear(18).size() == 18;
  }
  EXPECT_TRUE(served);
}

TEST_F(Nbd, ItsEndCutsWhoWaitsAndRemovesTheSocket) {
  disk_->hold(true);
  RawClient client(socket_);
  client.enter();
  client.request(0, 'w', disk_->content().size() / 2, 4096);
  export_.reset();
  EXPECT_TRUE(client.is_cut()) << "no reply: the guest reconnects and asks again";
  EXPECT_FALSE(std::filesystem::exists(socket_));
  EXPECT_EQ(NbdExport::serve(folder_ / std::string(120, 'x'), disk_).error().code,
            ErrorCode::invalid_argument);
}

}  // namespace
}  // namespace educloud::nc
