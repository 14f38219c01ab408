#include <gtest/gtest.h>
#include <signal.h>

#include <thread>

#include "cc/disks/nbd_targets.hpp"
#include "integration/cc_disks/initiator.hpp"

namespace educloud::test {
namespace {

const std::string kKey(64, 'a');
const std::string kServer = "VS00000001";

class Nbd : public ::testing::Test {
 protected:
  Nbd() {
    dir_.write("disk", "");
    std::filesystem::resize_file(dir_ / "disk", 4 << 20);
  }
  cc::NbdTargets::Options options() const {
    cc::NbdTargets::Options out;
    out.first_port = port_;
    out.ports = 20;
    out.run_dir = dir_ / "run";
    return out;
  }
  cc::NbdTarget target(const std::string& key = kKey, int port = 0) const {
    return {*InstanceId::parse(kServer), dir_ / "disk", key, port};
  }
  /// As a node's client; an empty key: without TLS.
  Result<> io(int port, const std::string& key, const std::string& command) {
    std::vector<std::string> argv{"qemu-io", "-c", command};
    std::string image =
        "driver=raw,file.driver=nbd,file.server.type=inet,file.server.host=127.0.0.1,file.server.port=" +
        std::to_string(port) + ",file.export=" + kServer;
    if (!key.empty()) {
      keys_.write("keys.psk", std::string(cc::NbdTargets::kUser) + ":" + key + "\n");
      argv.insert(argv.end(),
                  {"--object", "tls-creds-psk,id=tls,endpoint=client,username=" +
                                   std::string(cc::NbdTargets::kUser) + ",dir=" + keys_.path().string()});
      image += ",file.tls-creds=tls";
    }
    argv.insert(argv.end(), {"--image-opts", image});
    auto ran = sys::run({.argv = argv, .timeout = std::chrono::seconds{60}});
    if (!ran) return fail(ran.error());
    const auto text = ran->out + ran->err;
    const bool good = ran->exit_code == 0 && text.find("Pattern verification failed") == std::string::npos;
    return good ? Result<>{} : fail(ErrorCode::internal, text);
  }
  std::string start_of_disk() const { return testing::slurp(dir_ / "disk").substr(0, 1024); }

  const testing::TempDir dir_, keys_;
  const int port_ = free_port();
};

TEST_F(Nbd, OnlyTheKeyReadsAndWritesAndWhatIsWrittenIsOnTheDisk) {
  cc::NbdTargets targets(options());
  const auto port = targets.open(target());
  ASSERT_TRUE(port) << port.error().message;
  EXPECT_EQ(*targets.open(target()), *port) << "the same again";
  EXPECT_EQ(targets.open(target(std::string(64, 'b'))).error().code, ErrorCode::conflict);
  auto wrote = io(*port, kKey, "write -P 7 0 1k");
  ASSERT_TRUE(wrote) << wrote.error().message;
  EXPECT_EQ(start_of_disk(), std::string(1024, '\7'));
  EXPECT_FALSE(io(*port, std::string(64, 'b'), "read 0 1k"));
  EXPECT_FALSE(io(*port, "", "read 0 1k")) << "never in the clear";
  targets.close(target().instance);
  EXPECT_FALSE(targets.is_open(target().instance));
  EXPECT_FALSE(io(*port, kKey, "read 0 1k"));
  EXPECT_TRUE(std::filesystem::is_empty(dir_ / "run")) << "no key is left";
  const auto again = targets.open(target(std::string(64, 'c')));
  ASSERT_TRUE(again);
  EXPECT_FALSE(io(*again, kKey, "read 0 1k")) << "a new epoch has a new key";
  EXPECT_TRUE(io(*again, std::string(64, 'c'), "read -P 7 0 1k"));
}

TEST_F(Nbd, AKilledServerComesBackAtItsPort) {
  cc::NbdTargets targets(options());
  const auto port = targets.open(target());
  ASSERT_TRUE(port) << port.error().message;
  const auto served = sys::run({.argv = {"pgrep", "-f", "qemu-nbd.*--port=" + std::to_string(*port)}});
  ASSERT_TRUE(served);
  const int pid = std::atoi(served->out.c_str());
  ASSERT_GT(pid, 1);
  ASSERT_EQ(kill(pid, SIGKILL), 0);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds{60};
  auto wrote = io(*port, kKey, "write -P 9 0 1k");
  while (!wrote && std::chrono::steady_clock::now() < deadline) wrote = io(*port, kKey, "write -P 9 0 1k");
  ASSERT_TRUE(wrote) << wrote.error().message;
  targets.stop();
  EXPECT_EQ(targets.open(target()).error().code, ErrorCode::cancelled);
  cc::NbdTargets next(options());
  ASSERT_TRUE(next.open(target(kKey, *port)));
  EXPECT_TRUE(io(*port, kKey, "read -P 9 0 1k"));
}

TEST_F(Nbd, EachDiskHasItsPortAsLongAsThereAreSome) {
  auto few = options();
  few.ports = 1;
  cc::NbdTargets targets(few);
  const auto port = targets.open(target());
  ASSERT_TRUE(port) << port.error().message;
  auto other = target();
  other.instance = *InstanceId::parse("VS00000002");
  EXPECT_EQ(targets.open(other).error().code, ErrorCode::exhausted);
  EXPECT_EQ(targets.open(target("not hex")).error().code, ErrorCode::conflict);
  other.file = dir_ / "missing";
  targets.close(target().instance);
  EXPECT_EQ(targets.open(other).error().code, ErrorCode::unavailable);
  other.key = "not hex";
  EXPECT_EQ(targets.open(other).error().code, ErrorCode::invalid_argument);
}

}  // namespace
}  // namespace educloud::test
