// Converting with the real qemu-img.
#include <gmock/gmock.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "qemu_fixture.hpp"

namespace educloud::image {
namespace {

using ::testing::HasSubstr;
using testing::tool;

constexpr std::uint64_t kDisk = 8 << 20;

class ConvertReal : public testing::QemuTest {};

TEST_F(ConvertReal, EveryFormatBecomesTheSameDisk) {
  struct Case {
    Format format;
    std::vector<std::string> options;
  };
  for (const auto& one :
       {Case{Format::raw, {}}, Case{Format::vdi, {}}, Case{Format::vdi, {"-o", "static=on"}},
        Case{Format::vmdk, {}}, Case{Format::vmdk, {"-o", "subformat=streamOptimized"}},
        Case{Format::vhdx, {}}, Case{Format::vhdx, {"-o", "subformat=fixed"}}}) {
    const std::string name(to_string(one.format));
    const auto input = one.format == Format::raw ? raw_disk() : disk_as(name, one.options);
    const auto before = inspect_file(input);
    ASSERT_TRUE(before) << name << ": " << before.error().message;
    EXPECT_EQ(before->format, one.format);
    EXPECT_EQ(before->virtual_size_bytes, 8U << 20) << name;
    std::vector<int> percents;
    auto asked = request(input, one.format);
    asked.on_percent = [&percents](int percent) { percents.push_back(percent); };
    const auto result = convert_to_raw(asked, before->virtual_size_bytes);
    ASSERT_TRUE(result) << name << ": " << result.error().message;
    EXPECT_EQ(result->disk_bytes, kDisk);
    EXPECT_EQ(result->isolated, ::geteuid() == 0);
    EXPECT_EQ(percents.empty() ? -1 : percents.back(), 100) << name;
    expect_same_disk(at("disk.raw"), "raw", at("out.raw"), "raw");
    EXPECT_FALSE(std::filesystem::exists(dir_ / "work"));
    struct stat info {};
    ASSERT_EQ(::stat(at("out.raw").c_str(), &info), 0);
    EXPECT_EQ(info.st_uid, ::geteuid());
    EXPECT_EQ(info.st_mode & 0777U, 0600U);
    std::filesystem::remove(dir_ / "out.raw");
  }
}

TEST_F(ConvertReal, RawContentIsNeverProbed) {
  // Looks like a qcow2 with a backing file, but was declared raw: it stays data.
  tool({"qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", "/etc/hostname", at("evil"),
        "1M"});
  const auto result =
      convert_to_raw(request(at("evil"), Format::raw), std::filesystem::file_size(at("evil")));
  ASSERT_TRUE(result) << result.error().message;
  expect_same_disk(at("evil"), "raw", at("out.raw"), "raw");
}

TEST_F(ConvertReal, TheConverterCannotReadOtherFiles) {
  ASSERT_EQ(::geteuid(), 0u) << "run as root: this becomes another user";
  // Past the inspector on purpose: the second wall, the user, must hold by itself.
  const auto secret = dir_.write("secret.raw", std::string(1 << 20, 's'));
  std::filesystem::permissions(secret, static_cast<std::filesystem::perms>(0600));
  tool({"qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", secret.string(), at("evil"),
        "1M"});
  const auto result = convert_to_raw(request(at("evil"), Format::qcow2), 1 << 20);
  ASSERT_FALSE(result);
  EXPECT_THAT(result.error().message, HasSubstr("Permission denied"));
  expect_nothing_left();
}

TEST_F(ConvertReal, IsolationCanBeRequired) {
  auto asked = request(raw_disk(), Format::raw);
  asked.isolation = Isolation::required;
  asked.user = "";
  EXPECT_EQ(convert_to_raw(asked, kDisk).error().code, ErrorCode::permission_denied);
  asked.user = "no-such-user";
  const auto result = convert_to_raw(asked, kDisk);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ::geteuid() == 0 ? ErrorCode::not_found : ErrorCode::permission_denied);
  expect_nothing_left();
}

TEST_F(ConvertReal, DamageIsRefusedAndLeavesNothing) {
  const auto input = disk_as("vmdk", {"-o", "subformat=streamOptimized"});
  std::filesystem::resize_file(input, 66'000);
  const auto result = convert_to_raw(request(input, Format::vmdk), kDisk);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::invalid_argument) << result.error().message;
  expect_nothing_left();
}

TEST_F(ConvertReal, OutputPastItsLimitIsTooLarge) {
  // Larger than its header was read to say: the kernel ends it.
  const auto result = convert_to_raw(request(raw_disk(), Format::raw), 1 << 17);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::too_large) << result.error().message;
  expect_nothing_left();
}

TEST_F(ConvertReal, CancelAndTimeoutLeaveNothing) {
  const auto stop = std::make_unique<std::stop_source>();
  stop->request_stop();
  EXPECT_EQ(convert_to_raw(request(raw_disk(), Format::raw), kDisk, stop->get_token()).error().code,
            ErrorCode::cancelled);
  expect_nothing_left();
  auto asked = request(raw_disk("large", 4096), Format::raw);
  asked.timeout = std::chrono::milliseconds(1);
  EXPECT_EQ(convert_to_raw(asked, kDisk).error().code, ErrorCode::timeout);
  expect_nothing_left();
}

TEST_F(ConvertReal, ReplacesNothing) {
  dir_.write("out.raw", "mine");
  EXPECT_EQ(convert_to_raw(request(raw_disk(), Format::raw), kDisk).error().code, ErrorCode::conflict);
  EXPECT_EQ(educloud::testing::slurp(dir_ / "out.raw"), "mine");
}

/// A file system of 16 MiB over the test's directory, in a mount namespace of this test only.
class FullDisk : public testing::QemuTest {
 protected:
  void SetUp() override {
    ASSERT_EQ(::geteuid(), 0u) << "run as root: this mounts";
    ASSERT_EQ(::unshare(CLONE_NEWNS), 0);
    ASSERT_EQ(::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
    ASSERT_EQ(::mount("small", dir_.path().c_str(), "tmpfs", 0, "size=16m"), 0);
    mounted_ = true;
  }
  void TearDown() override {
    if (mounted_) {
      EXPECT_EQ(::umount2(dir_.path().c_str(), MNT_DETACH), 0);
    }
  }
  std::size_t files_here() const {
    return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(dir_.path()),
                                                  std::filesystem::directory_iterator()));
  }

  bool mounted_ = false;
};

TEST_F(FullDisk, ConvertIsExhaustedAndLeavesNothing) {
  // 10 MiB of data fit once, not twice.
  dir_.write("disk.raw", std::string(10 << 20, 'd'));
  const auto result = convert_to_raw(request(at("disk.raw"), Format::raw), 10 << 20);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::exhausted) << result.error().message;
  expect_nothing_left();
  EXPECT_EQ(files_here(), 1U);
}

}  // namespace
}  // namespace educloud::image
