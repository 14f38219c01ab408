#include "nc/cache/submit.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "common/sys/process.hpp"
#include "integration/nc_submit/memory_walrus.hpp"
#include "support/temp_dir.hpp"

namespace educloud::nc {
namespace {

using ::testing::HasSubstr;

constexpr std::size_t kChunk = chunk::kChunkBytes;

std::string some_bytes(std::size_t size, unsigned seed) {
  std::mt19937_64 random(seed);
  std::string bytes(size, '\0');
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(random());
  return bytes;
}

/// A version that the receiver has, overlays on it made and written by the real QEMU, and their submit.
class SubmitTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(walrus_.is_up()); }

  void base_of(std::string disk) {
    base_ = std::move(disk);
    folder_.write("base", base_);
    map_ = walrus_.know(base_);
    layers_ = {{folder_ / "base", "raw"}};
    changed_ = 0;
  }
  static void run(std::vector<std::string> argv) {
    auto out = sys::run_checked({.argv = std::move(argv)});
    ASSERT_TRUE(out) << out.error().message;
  }
  /// A new top layer in which `commands` of qemu-io are carried out.
  void overlay(const std::vector<std::string>& commands, std::size_t size = 0) {
    const auto file = folder_ / ("overlay" + std::to_string(++changed_));
    std::vector<std::string> create{"qemu-img",
                                    "create",
                                    "-q",
                                    "-f",
                                    "qcow2",
                                    "-o",
                                    "cluster_size=65536",
                                    "-F",
                                    layers_.front().format,
                                    "-b",
                                    layers_.front().file,
                                    file};
    if (size != 0) create.push_back(std::to_string(size));
    run(create);
    std::vector<std::string> io{"qemu-io", "-f", "qcow2"};
    for (const auto& command : commands) io.insert(io.end(), {"-c", command});
    io.push_back(file);
    run(io);
    layers_.insert(layers_.begin(), {file, "qcow2"});
  }
  SubmitRequest request() const {
    SubmitRequest made;
    made.remote = walrus_.remote();
    made.layers = layers_;
    made.changed_layers = changed_;
    made.base = map_;
    made.parent = made.if_current = "IMG00000001/1";
    made.cmdid = "01890000-0000-7000-8000-000000000001";
    made.stall_timeout = std::chrono::seconds{30};
    return made;
  }
  SubmitReport submit() {
    auto report = submit_changes(request(), {}, {});
    EXPECT_TRUE(report) << report.error().message;
    return report ? *report : SubmitReport{};
  }
  /// The disk as QEMU reads it.
  std::string disk() {
    run({"qemu-img", "convert", "-f", layers_.front().format, "-O", "raw", layers_.front().file,
         folder_ / "flat"});
    return testing::slurp(folder_ / "flat");
  }
  std::string from(const std::string& content) {
    return "-s " + folder_.write("content", content).string() + " ";
  }

  testing::TempDir folder_;
  MemoryWalrus walrus_;
  std::string base_;
  chunk::DiskMap map_;
  std::vector<image::LayeredDisk::Layer> layers_;
  std::size_t changed_ = 0;
};

TEST_F(SubmitTest, OnlyWhatChangedIsSent) {
  base_of(some_bytes(16 << 20, 1) + std::string(16 << 20, '\0') + some_bytes(1 << 20, 2));
  const std::string same = base_.substr(kChunk * 3, kChunk);
  overlay({"write " + from(same) + std::to_string(kChunk * 3) + " 64k",  // the same again
           "write -P 0x41 0 4k",                                         // of one chunk
           "write -P 0x42 20M 128k",                                     // in the hole, twice the same
           "write -P 0 4M 64k", "write -z 5M 256k"});                    // holes by content and by table
  std::uint64_t done = 0, total = 0;
  auto report = submit_changes(request(),
                               [&](std::uint64_t d, std::uint64_t t) {
                                 done = std::max(done, d);
                                 total = t;
                               },
                               {});
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(walrus_.disk(), disk());
  EXPECT_EQ(report->candidate_bytes, 5 * kChunk);
  EXPECT_EQ(report->changed_bytes, 8 * kChunk) << "one in place, two new, one and four made holes";
  EXPECT_EQ(walrus_.stored_frames, 2 + 3) << "two chunks, and the groups of 0, 4 and 20 MiB";
  EXPECT_LT(report->sent_bytes, 2 * kChunk);
  EXPECT_EQ(done, total);
  EXPECT_EQ(total, report->candidate_bytes);
  EXPECT_EQ(report->receipt, "receipt of " + report->digest.hex());
  EXPECT_EQ(walrus_.last_publish.parent, "IMG00000001/1");
  EXPECT_EQ(walrus_.last_publish.cmdid, request().cmdid);
  submit();
  EXPECT_EQ(walrus_.stored_frames, 5) << "all of it is there";
}

TEST_F(SubmitTest, NothingChangedIsTheSameVersion) {
  base_of(some_bytes(1 << 20, 3));
  overlay({});
  EXPECT_EQ(submit().digest, map_.manifest().digest());
  EXPECT_EQ(walrus_.stored_frames, 0);
}

TEST_F(SubmitTest, SeveralLayersAreOneDisk) {
  base_of(some_bytes(3 << 20, 4));
  overlay({"write -P 1 0 1M"});
  overlay({"write -P 2 512k 1M", "write -P 0 0 64k"});
  submit();
  EXPECT_EQ(walrus_.disk(), disk());
}

TEST_F(SubmitTest, SizesThatFitNoChunk) {
  base_of(some_bytes((1 << 20) + 1000, 5));
  overlay({});  // QEMU rounds up to whole sectors
  submit();
  EXPECT_EQ(walrus_.published.disk_bytes, (1U << 20) + 1024);
  EXPECT_EQ(walrus_.disk(), base_ + std::string(24, '\0'));
  base_of(some_bytes((1 << 20) + 1000, 6));
  overlay({"write -P 7 3M 512"}, (3 << 20) + 512);
  submit();
  EXPECT_EQ(walrus_.disk(), disk());
  base_of(some_bytes(700, 7));
  overlay({"write -P 7 0 512"}, 4 << 20);
  submit();
  EXPECT_EQ(walrus_.disk(), disk());
  base_of(some_bytes((1 << 20) + 512, 8));
  overlay({"write -P 9 0 512"}, 512 * 1024 + 1536);  // smaller than its base
  submit();
  EXPECT_EQ(walrus_.disk(), disk());
}

TEST_F(SubmitTest, ASecondTrySendsTheRestOnly) {
  base_of(std::string(64 << 20, '\0'));
  overlay({"write " + from(some_bytes(40 << 20, 9)) + "1M 40M"});
  walrus_.accept_frames = 300;
  auto cut = submit_changes(request(), {}, {});
  ASSERT_FALSE(cut);
  EXPECT_EQ(cut.error().code, ErrorCode::permission_denied);
  const int before = walrus_.stored_frames;
  EXPECT_GT(before, 0);
  walrus_.accept_frames = 1'000'000;
  const auto report = submit();
  EXPECT_EQ(walrus_.stored_frames, 40 * 16 + 11) << "each chunk and each group once";
  EXPECT_LE(report.sent_bytes, static_cast<std::uint64_t>(640 + 11 - before) * (kChunk + 56));
  EXPECT_EQ(walrus_.disk(), disk());
}

TEST_F(SubmitTest, ABusyReceiverIsAskedAgain) {
  base_of(std::string(1 << 20, '\0'));
  overlay({"write -P 5 0 1M"});
  walrus_.busy = 2;
  submit();
  EXPECT_EQ(walrus_.disk(), disk());
  EXPECT_EQ(walrus_.busy, 0);
}

TEST_F(SubmitTest, AnotherVersionInUseIsAConflictAndNothingIsLost) {
  base_of(some_bytes(1 << 20, 10));
  overlay({"write -P 5 0 64k"});
  walrus_.current = "IMG00000001/7";
  auto refused = submit_changes(request(), {}, {});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::conflict);
  EXPECT_THAT(refused.error().message, HasSubstr("IMG00000001/7 is in use"));
  auto anyway = request();
  anyway.if_current.clear();
  const int before = walrus_.stored_frames;
  EXPECT_TRUE(submit_changes(anyway, {}, {}));
  EXPECT_EQ(walrus_.stored_frames, before) << "what was sent is there still";
}

TEST_F(SubmitTest, StopsWhenAsked) {
  base_of(std::string(64 << 20, '\0'));
  overlay({"write " + from(some_bytes(40 << 20, 11)) + "0 40M"});
  std::stop_source stop;
  auto stopped = submit_changes(
      request(),
      [&](std::uint64_t done, std::uint64_t) {
        if (done > 0) stop.request_stop();
      },
      stop.get_token());
  ASSERT_FALSE(stopped);
  EXPECT_EQ(stopped.error().code, ErrorCode::cancelled);
  EXPECT_EQ(walrus_.published.disk_bytes, 0U);
}

TEST_F(SubmitTest, AnAwayReceiverIsGivenUpAfterAWhile) {
  base_of(std::string(1 << 20, '\0'));
  overlay({"write -P 5 0 1M"});
  auto away = request();
  away.remote.base = *http::Url::parse("http://127.0.0.1:1");
  away.stall_timeout = std::chrono::seconds{1};
  auto failed = submit_changes(away, {}, {});
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, ErrorCode::unavailable);
}

}  // namespace
}  // namespace educloud::nc
