#include <gmock/gmock.h>

#include "cc/disks/disk_submit.hpp"
#include "common/sys/process.hpp"
#include "integration/cc_disks/disk_host.hpp"
#include "integration/cc_disks/initiator.hpp"
#include "nc/app/cc_disks.hpp"

namespace educloud::nc {
namespace {

using ::testing::HasSubstr;

constexpr const char* kDatabase = "IMG000000db";
constexpr const char* kServer = "VS0000beef";
constexpr std::uint64_t kDiskBytes = 64 << 20;
constexpr std::uint64_t kMiB = 1 << 20;

/// A cc in this process and the nodes' side of it, over HTTP.
class CopiedDisk : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto file = dir_ / "first.raw";
    std::ofstream(file) << std::string(10'000, 'a');
    std::filesystem::resize_file(file, kDiskBytes);
    fill(file, 40 * kMiB, 3 * kMiB, 'b');
    auto receipt =
        cc::submit_disk(file, walrus_.remote(kDatabase, 1, "PUT"),
                        {.manifest = {}, .parent = {}, .if_current = {}, .cmdid = new_command_id().str()},
                        [](auto, auto) {}, {});
    ASSERT_TRUE(receipt) << receipt.error().message;
    receipt_ = *transfer::verify_receipt(test::kDataKey, *receipt);
    first_ = testing::slurp(file);
    host_.emplace(dir_ / "cc", walrus_, port_);
  }

  static void fill(const std::filesystem::path& file, std::uint64_t at, std::size_t bytes, char with) {
    std::fstream out(file, std::ios::in | std::ios::out | std::ios::binary);
    out.seekp(static_cast<std::streamoff>(at));
    out << std::string(bytes, with);
  }
  CcDisks::Leave leave(const std::string& node, std::int64_t epoch) const {
    const auto path = "/disks/" + std::string(kServer) + "/" + std::to_string(epoch);
    return {*InstanceId::parse(kServer), epoch, test::grant_for(node, "PUT", path)};
  }
  std::unique_ptr<CcDisks> cc() const {
    return make_cc_disks(
        {.cc = host_->url(), .patience = std::chrono::seconds{2}, .close_patience = std::chrono::seconds{2}});
  }
  CcDisks::Opening opening(const std::string& node, std::int64_t epoch,
                           const std::string& mode = "copy") const {
    CcDisks::Opening request;
    request.leave = leave(node, epoch);
    request.mode = mode;
    request.source = {kDatabase, 1, receipt_.digest, 0, static_cast<std::int64_t>(kDiskBytes), "raw"};
    request.source_grant = test::grant_for(node, "GET", transfer::version_path(kDatabase, 1));
    return request;
  }
  Result<CcDisks::Opened> open(const CcDisks::Opening& request) const {
    return cc()->open(request, [](auto, auto) {}, {});
  }
  /// The copy of a node whose VM is about to start, or the reason why there is none.
  Result<CcDisks::Held> start(const std::string& node, std::int64_t epoch) {
    auto request = opening(node, epoch);
    auto opened = open(request);
    if (!opened) return fail(opened.error());
    const CcDisks::Held held{request.leave, opened->copy->name, dir_ / (node + ".raw")};
    if (auto ok = cc()->fetch(held, opened->copy->data_bytes, [](auto, auto) {}, {}); !ok)
      return fail(ok.error());
    request.writes = true;
    opened = open(request);
    return opened ? Result<CcDisks::Held>(held) : fail(opened.error());
  }
  Result<> give_back(const CcDisks::Held& held, const std::string& give = "00000000000000ab") const {
    return cc()->give_back(held, give, [](auto, auto) {}, {});
  }
  std::filesystem::path disk() const { return dir_ / "cc/space/database/instances" / kServer / "database"; }
  std::filesystem::path back() const { return disk().string() + ".back"; }

  const testing::TempDir dir_;
  test::RealWalrus walrus_;
  transfer::Receipt receipt_;
  std::string first_;
  const int port_ = test::free_port();
  std::optional<test::DiskHost> host_;
};

TEST_F(CopiedDisk, GoesAsItIsAndComesBackAsItBecame) {
  auto held = start("nc1", 1);
  ASSERT_TRUE(held) << held.error().message;
  EXPECT_EQ(testing::slurp(held->file), first_);
  struct stat status {};
  ASSERT_EQ(::stat(held->file.c_str(), &status), 0);
  EXPECT_LT(status.st_blocks * 512, static_cast<long>(8 * kMiB)) << "sparse";
  EXPECT_EQ(status.st_mode & 0777, 0600u);
  fill(held->file, 20 * kMiB, 2 * kMiB + 17, 'c');
  fill(held->file, kDiskBytes - 5, 5, 'd');
  const auto now = testing::slurp(held->file);

  auto closed = cc()->close(held->leave, {});
  ASSERT_FALSE(closed) << "its newest copy is not there";
  EXPECT_EQ(closed.error().code, ErrorCode::conflict);
  auto given = give_back(*held);
  ASSERT_TRUE(given) << given.error().message;
  EXPECT_EQ(testing::slurp(disk()), now);
  EXPECT_FALSE(std::filesystem::exists(back()));
  ASSERT_TRUE(give_back(*held)) << "told once more after a kill";
  EXPECT_EQ(testing::slurp(disk()), now);
  ASSERT_TRUE(cc()->close(held->leave, {}));
  EXPECT_EQ(give_back(*held).error().code, ErrorCode::conflict) << "it is closed";

  // Another node, and another way of reaching it.
  auto next = start("nc2", 2);
  ASSERT_TRUE(next) << next.error().message;
  EXPECT_NE(next->copy, held->copy);
  EXPECT_EQ(testing::slurp(next->file), now);
  ASSERT_TRUE(give_back(*next));
  auto iscsi = open(opening("nc1", 3, "iscsi"));
  ASSERT_TRUE(iscsi) << iscsi.error().message;
  EXPECT_FALSE(iscsi->copy);
}

TEST_F(CopiedDisk, HalfOfOneIsNothing) {
  auto held = start("nc1", 1);
  ASSERT_TRUE(held) << held.error().message;
  fill(held->file, 8 * kMiB, 8 * kMiB, 'e');
  const auto now = testing::slurp(held->file);
  std::stop_source stop;
  const auto at_half = [&](std::uint64_t done, std::uint64_t total) {
    if (done > total / 2) stop.request_stop();
  };
  auto cut = cc()->give_back(*held, "00000000000000ab", at_half, stop.get_token());
  ASSERT_FALSE(cut);
  EXPECT_EQ(cut.error().code, ErrorCode::cancelled);
  EXPECT_TRUE(std::filesystem::exists(back()));
  EXPECT_EQ(testing::slurp(disk()), first_);

  // It goes on where it was: what the cc has is not sent again.
  std::uint64_t least = kDiskBytes;
  int sent = 0;
  auto given = cc()->give_back(*held, "00000000000000ab",
                               [&](std::uint64_t done, std::uint64_t total) {
                                 if (++sent > 2) least = std::min(least, total - done);
                               },
                               {});
  ASSERT_TRUE(given) << given.error().message;
  EXPECT_LT(sent, 10);
  EXPECT_EQ(testing::slurp(disk()), now);
}

TEST_F(CopiedDisk, ARestartOfTheCcInTheMiddleBeginsAgain) {
  auto held = start("nc1", 1);
  ASSERT_TRUE(held) << held.error().message;
  fill(held->file, 8 * kMiB, 8 * kMiB, 'e');
  const auto now = testing::slurp(held->file);
  auto disks = cc();
  std::stop_source stop;
  auto cut = disks->give_back(
      *held, "00000000000000ab",
      [&](std::uint64_t done, std::uint64_t total) {
        if (done > total / 2) stop.request_stop();
      },
      stop.get_token());
  ASSERT_FALSE(cut);
  host_.reset();
  EXPECT_EQ(testing::slurp(disk()), first_) << "the old disk is whole";
  auto away = disks->give_back(*held, "00000000000000ab", [](auto, auto) {}, {});
  ASSERT_FALSE(away);
  EXPECT_EQ(away.error().code, ErrorCode::unavailable) << away.error().message;
  host_.emplace(dir_ / "cc", walrus_, port_);
  EXPECT_EQ(open(opening("nc2", 2)).error().code, ErrorCode::unavailable) << "it is still out";
  auto given = give_back(*held);
  ASSERT_TRUE(given) << given.error().message;
  EXPECT_EQ(testing::slurp(disk()), now);
}

TEST_F(CopiedDisk, WhoHoldsItKeepsIt) {
  auto held = start("nc1", 1);
  ASSERT_TRUE(held) << held.error().message;
  // A host that was restarted goes on with what it has, under the next epoch.
  auto again = open(opening("nc1", 2));
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(again->copy->name, held->copy);
  EXPECT_EQ(again->left, "");
  EXPECT_TRUE(again->copy->is_out);
  EXPECT_EQ(give_back(*held).error().code, ErrorCode::conflict) << "under the old epoch no more";

  auto other = open(opening("nc2", 3));
  ASSERT_FALSE(other);
  EXPECT_EQ(other.error().code, ErrorCode::unavailable);
  EXPECT_THAT(other.error().message, HasSubstr("node nc1"));
  EXPECT_EQ(open(opening("nc1", 3, "iscsi")).error().code, ErrorCode::conflict);

  // Given up by clc.
  auto request = opening("nc2", 3);
  request.lost = {"nc9", "nc1"};
  auto taken = open(request);
  ASSERT_TRUE(taken) << taken.error().message;
  EXPECT_EQ(taken->left, "nc1");
  EXPECT_NE(taken->copy->name, held->copy);
  EXPECT_EQ(open(request)->copy->name, taken->copy->name) << "asked again";
  EXPECT_EQ(open(request)->left, "nc1");
  auto late = *held;
  late.leave = leave("nc1", 2);
  EXPECT_EQ(give_back(late).error().code, ErrorCode::conflict);
  EXPECT_EQ(testing::slurp(disk()), first_);
  ASSERT_TRUE(cc()->close(leave("nc2", 3), {})) << "its guest wrote nothing";
  EXPECT_EQ(open(opening("nc2", 4))->left, "nc1") << "nobody has been told yet";
  auto begun = start("nc2", 4);
  ASSERT_TRUE(begun) << begun.error().message;
  ASSERT_TRUE(give_back(*begun));
  ASSERT_TRUE(cc()->close(begun->leave, {}));
  EXPECT_EQ(open(opening("nc2", 5))->left, "");
}

TEST_F(CopiedDisk, ALateReturnIsNotThatOfTheNextStart) {
  auto held = start("nc1", 1);
  ASSERT_TRUE(held) << held.error().message;
  ASSERT_TRUE(give_back(*held));
  auto request = opening("nc1", 1);
  EXPECT_FALSE(open(request)->copy->is_out);
  request.writes = true;
  ASSERT_TRUE(open(request)) << "its VM starts again";
  fill(held->file, 8 * kMiB, kMiB, 'e');
  const auto now = testing::slurp(held->file);
  EXPECT_EQ(give_back(*held).error().code, ErrorCode::invalid_argument);
  EXPECT_EQ(cc()->close(held->leave, {}).error().code, ErrorCode::conflict) << "it is out still";
  EXPECT_EQ(testing::slurp(disk()), first_);
  ASSERT_TRUE(give_back(*held, "00000000000000cd"));
  EXPECT_EQ(testing::slurp(disk()), now);
}

TEST_F(CopiedDisk, AnotherLengthAndAForgedCallAreRefused) {
  auto held = start("nc1", 1);
  ASSERT_TRUE(held) << held.error().message;
  std::filesystem::resize_file(held->file, kDiskBytes / 2);
  EXPECT_EQ(give_back(*held).error().code, ErrorCode::invalid_argument);
  auto forged = *held;
  forged.leave.grant = test::grant_for("nc1", "PUT", "/disks/VS00000001/1");
  EXPECT_EQ(give_back(forged).error().code, ErrorCode::permission_denied);
  forged.leave = leave("nc2", 1);
  EXPECT_EQ(cc()->fetch(forged, 0, [](auto, auto) {}, {}).error().code, ErrorCode::conflict);
  EXPECT_EQ(testing::slurp(disk()), first_);
  EXPECT_TRUE(cc()->remove(held->leave, {}));
  EXPECT_FALSE(std::filesystem::exists(disk().parent_path()));
}

}  // namespace
}  // namespace educloud::nc
