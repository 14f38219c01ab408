// A store whose disk really is full: a small tmpfs that only this process sees.
#include <sched.h>
#include <sys/mount.h>

#include "integration/walrus/fixture.hpp"
#include "support/fault.hpp"

namespace educloud::walrus {
namespace {

class FullDisk : public WalrusTest {
 protected:
  void SetUp() override {
    WalrusTest::SetUp();
    stop();
    std::filesystem::remove_all(config_.common.prefix);
    std::filesystem::create_directories(config_.common.prefix);
    // Own mounts: they vanish with this process, whatever happens to it.
    ASSERT_EQ(::unshare(CLONE_NEWNS), 0) << "integration tests run as root";
    ASSERT_EQ(::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
    ASSERT_EQ(::mount("tmpfs", config_.common.prefix.c_str(), "tmpfs", 0, "size=24m"), 0);
    mounted_ = true;
    config_.reserve_bytes = 0;
    start();
  }
  void TearDown() override {
    WalrusTest::TearDown();
    if (mounted_) ::umount2(config_.common.prefix.c_str(), MNT_DETACH);
  }
  /// Leaves `free_bytes` on the disk.
  void fill(std::uint64_t free_bytes) {
    const auto free = std::filesystem::space(config_.common.prefix).available;
    ASSERT_GT(free, free_bytes);
    std::ofstream(filler(), std::ios::binary) << std::string(free - free_bytes, 'f');
  }
  std::filesystem::path filler() const { return config_.common.prefix / "filler"; }

  bool mounted_ = false;
};

TEST_F(FullDisk, ConversionThatDoesNotFitLeavesNothing) {
  const auto command = expect_import();
  // Compressed it is small; what comes out of it has 40 MiB.
  std::string data;
  while (data.size() < (40u << 20)) data += "the same again and again, but no zeros in it; ";
  data.resize(40 << 20);
  const auto plain = dir_.write("plain", data);
  const auto file = dir_ / "small.vmdk";
  run({"qemu-img", "convert", "-q", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized",
       plain.string(), file.string()});
  ASSERT_LT(std::filesystem::file_size(file), 4u << 20);
  auto refused = upload(file, 1, "vmdk");
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::exhausted) << refused.error().message;
  const auto status = final_status(command.cmdid);
  EXPECT_EQ(status.event, "failed");
  EXPECT_FALSE(status.errormsg.empty());
  EXPECT_FALSE(is_published(1));
  expect_no_leftovers();
  // The disk is as empty as before, and the next import works.
  const auto again = expect_import();
  EXPECT_TRUE(upload(make_image("good.qcow2", "qcow2"), 1, "qcow2").has_value());
  EXPECT_EQ(final_status(again.cmdid).event, "submitted");
}

TEST_F(FullDisk, UploadStopsAndContinuesWhenThereIsRoom) {
  expect_import();
  auto request = make_upload(url_, make_image("image.qcow2", "qcow2"), 1, "user", "qcow2");
  request.piece_bytes = 1 << 20;
  const auto owner = std::make_unique<std::stop_source>();
  (void)transfer::upload_version(
      request, [&](const transfer::Progress&) { owner->request_stop(); }, owner->get_token());
  fill(64 << 10);
  auto refused = transfer::upload_version(request);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::exhausted) << refused.error().message;
  EXPECT_NE(refused.error().message.find("No space left"), std::string::npos) << refused.error().message;
  std::filesystem::remove(filler());
  auto receipt = transfer::upload_version(request);
  ASSERT_TRUE(receipt.has_value()) << receipt.error().message;
  EXPECT_EQ(content(1), educloud::testing::slurp(raw()));
}

TEST_F(FullDisk, SubmitThatDoesNotFitIsRefusedAndTheStoreStaysSound) {
  ASSERT_TRUE(submit(noise(2 << 20, 1), 1).receipt.has_value());
  const CutDisk large(noise(40 << 20, 2));
  auto refused = submit_disk(url_, large, 2).receipt;
  educloud::test::injected("bad-disk");
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::exhausted) << refused.error().message;
  EXPECT_FALSE(is_published(2));
  EXPECT_EQ(content(1), noise(2 << 20, 1));
  expect_sound();
  stop();
  start();
  EXPECT_EQ(content(1), noise(2 << 20, 1));
}

TEST_F(FullDisk, NewUploadIsRefusedBeforeItsFirstByte) {
  expect_import();
  fill(1 << 20);
  auto refused = upload(make_image("image.qcow2", "qcow2"), 1, "qcow2");
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::exhausted);
  EXPECT_NE(refused.error().message.find("this upload needs"), std::string::npos) << refused.error().message;
}

}  // namespace
}  // namespace educloud::walrus
