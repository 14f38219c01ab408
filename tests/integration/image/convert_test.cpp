// Converting, overlays and flattening with the real qemu-img.
#include <gmock/gmock.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/image/copy.hpp"
#include "qemu_fixture.hpp"

namespace educloud::image {
namespace {

using ::testing::HasSubstr;
using testing::tool;

class ConvertReal : public testing::QemuTest {};

TEST_F(ConvertReal, EveryFormatBecomesTheSameStandaloneDisk) {
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
    const auto result = convert_to_qcow2(asked);
    ASSERT_TRUE(result) << name << ": " << result.error().message;
    EXPECT_EQ(result->header.format, Format::qcow2);
    EXPECT_EQ(result->header.virtual_size_bytes, 8U << 20);
    EXPECT_EQ(result->isolated, ::geteuid() == 0);
    EXPECT_EQ(percents.empty() ? -1 : percents.back(), 100) << name;
    expect_same_disk(at("disk.raw"), "raw", at("out.qcow2"), "qcow2");
    EXPECT_FALSE(std::filesystem::exists(dir_ / "work"));
    struct stat info {};
    ASSERT_EQ(::stat(at("out.qcow2").c_str(), &info), 0);
    EXPECT_EQ(info.st_uid, ::geteuid());
    EXPECT_EQ(info.st_mode & 0777U, 0600U);
    std::filesystem::remove(dir_ / "out.qcow2");
  }
}

TEST_F(ConvertReal, RawContentIsNeverProbed) {
  // Looks like a qcow2 with a backing file, but was declared raw: it stays data.
  tool({"qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", "/etc/hostname", at("evil"),
        "1M"});
  const auto result = convert_to_qcow2(request(at("evil"), Format::raw));
  ASSERT_TRUE(result) << result.error().message;
  expect_same_disk(at("evil"), "raw", at("out.qcow2"), "qcow2");
}

TEST_F(ConvertReal, TheConverterCannotReadOtherFiles) {
  ASSERT_EQ(::geteuid(), 0u) << "run as root: this becomes another user";
  // Past the inspector on purpose: the second wall, the user, must hold by itself.
  const auto secret = dir_.write("secret.raw", std::string(1 << 20, 's'));
  std::filesystem::permissions(secret, static_cast<std::filesystem::perms>(0600));
  tool({"qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", secret.string(), at("evil"),
        "1M"});
  const auto result = convert_to_qcow2(request(at("evil"), Format::qcow2));
  ASSERT_FALSE(result);
  EXPECT_THAT(result.error().message, HasSubstr("Permission denied"));
  expect_nothing_left();
}

TEST_F(ConvertReal, IsolationCanBeRequired) {
  auto asked = request(raw_disk(), Format::raw);
  asked.isolation = Isolation::required;
  asked.user = "";
  EXPECT_EQ(convert_to_qcow2(asked).error().code, ErrorCode::permission_denied);
  asked.user = "no-such-user";
  const auto result = convert_to_qcow2(asked);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ::geteuid() == 0 ? ErrorCode::not_found : ErrorCode::permission_denied);
  expect_nothing_left();
}

TEST_F(ConvertReal, DamageIsRefusedAndLeavesNothing) {
  const auto input = disk_as("vmdk", {"-o", "subformat=streamOptimized"});
  std::filesystem::resize_file(input, 66'000);
  const auto result = convert_to_qcow2(request(input, Format::vmdk));
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::invalid_argument) << result.error().message;
  expect_nothing_left();
}

TEST_F(ConvertReal, OutputPastItsLimitIsTooLarge) {
  auto asked = request(raw_disk(), Format::raw);
  asked.limits.max_file_bytes = 1 << 17;
  const auto result = convert_to_qcow2(asked);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::too_large) << result.error().message;
  expect_nothing_left();
}

TEST_F(ConvertReal, CancelAndTimeoutLeaveNothing) {
  const auto stop = std::make_unique<std::stop_source>();
  stop->request_stop();
  EXPECT_EQ(convert_to_qcow2(request(raw_disk(), Format::raw), stop->get_token()).error().code,
            ErrorCode::cancelled);
  expect_nothing_left();
  auto asked = request(raw_disk("large", 4096), Format::raw);
  asked.timeout = std::chrono::milliseconds(1);
  EXPECT_EQ(convert_to_qcow2(asked).error().code, ErrorCode::timeout);
  expect_nothing_left();
}

TEST_F(ConvertReal, ReplacesNothing) {
  dir_.write("out.qcow2", "mine");
  EXPECT_EQ(convert_to_qcow2(request(raw_disk(), Format::raw)).error().code, ErrorCode::conflict);
  EXPECT_EQ(educloud::testing::slurp(dir_ / "out.qcow2"), "mine");
}

class OverlayReal : public testing::QemuTest {
 protected:
  /// Writes 64 KiB of `pattern` at 1 MiB, as a guest would.
  void write_into(const std::string& overlay, const std::string& pattern) {
    tool({"qemu-io", "-f", "qcow2", "-c", "write -P " + pattern + " 1M 64k", overlay});
  }
};

TEST_F(OverlayReal, IsMadeOnTopOfItsBase) {
  const auto base = disk_as("qcow2");
  ASSERT_TRUE(create_overlay(base, Format::qcow2, at("overlay")));
  const auto fd = sys::open_file(at("overlay"), O_RDONLY).value();
  const auto header = inspect_overlay(fd.get(), base, Format::qcow2);
  ASSERT_TRUE(header) << header.error().message;
  EXPECT_EQ(header->virtual_size_bytes, 8U << 20);
  expect_same_disk(base, "qcow2", at("overlay"), "qcow2");
  EXPECT_EQ(create_overlay(base, Format::qcow2, at("overlay")).error().code, ErrorCode::conflict);
  ASSERT_TRUE(create_overlay(raw_disk(), Format::raw, at("larger"), 64 << 20));
  const auto larger = sys::open_file(at("larger"), O_RDONLY).value();
  EXPECT_EQ(inspect_overlay(larger.get(), at("disk.raw"), Format::raw)->virtual_size_bytes, 64U << 20);
}

TEST_F(OverlayReal, NeedsAGoodBase) {
  EXPECT_EQ(create_overlay(at("none"), Format::qcow2, at("overlay")).error().code, ErrorCode::not_found);
  EXPECT_EQ(create_overlay("relative", Format::qcow2, at("overlay")).error().code,
            ErrorCode::invalid_argument);
  tool({"qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", "/etc/shadow", at("evil"), "1M"});
  EXPECT_EQ(create_overlay(at("evil"), Format::qcow2, at("overlay")).error().code,
            ErrorCode::invalid_argument);
  EXPECT_FALSE(std::filesystem::exists(at("overlay")));
}

TEST_F(OverlayReal, FlattensToAStandaloneDisk) {
  const auto base = disk_as("qcow2");
  ASSERT_TRUE(create_overlay(base, Format::qcow2, at("overlay")));
  write_into(at("overlay"), "0xab");
  const auto base_before = sha256_file(base).value();
  std::vector<int> percents;
  FlattenRequest asked{.overlay = at("overlay"), .base = base, .output = at("flat")};
  asked.on_percent = [&percents](int percent) { percents.push_back(percent); };
  const auto header = flatten(asked);
  ASSERT_TRUE(header) << header.error().message;
  EXPECT_TRUE(inspect_file(at("flat"), {}, Format::qcow2));
  expect_same_disk(at("overlay"), "qcow2", at("flat"), "qcow2");
  EXPECT_EQ(sha256_file(base).value(), base_before);
  EXPECT_EQ(percents.empty() ? -1 : percents.back(), 100);
  EXPECT_EQ(flatten(asked).error().code, ErrorCode::conflict);  // the output is there
}

TEST_F(OverlayReal, FlattenRefusesAnotherBackingFile) {
  const auto base = disk_as("qcow2");
  ASSERT_TRUE(create_overlay(base, Format::qcow2, at("overlay")));
  dir_.write("secret", std::string(1 << 20, 's'));
  tool({"qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", at("secret"), at("overlay")});
  const auto result = flatten({.overlay = at("overlay"), .base = base, .output = at("flat")});
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::conflict);
  EXPECT_THAT(result.error().message, HasSubstr("'" + at("secret") + "', not '" + base + "'"));
  EXPECT_FALSE(std::filesystem::exists(at("flat")));
}

TEST_F(OverlayReal, FlattenRefusesABaseThatStandsOnSomething) {
  const auto base = disk_as("qcow2");
  tool({"qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, at("middle")});
  tool({"qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", at("middle"), at("overlay")});
  const auto result = flatten({.overlay = at("overlay"), .base = at("middle"), .output = at("flat")});
  ASSERT_FALSE(result);
  EXPECT_THAT(result.error().message, HasSubstr("backing file"));
}

/// A file system of 16 MiB over the test's directory, in a mount namespace of this test only.
class FullDisk : public testing::QemuTest {
 protected:
  void SetUp() override {
    ASSERT_EQ(::geteuid(), 0u) << "run as root: this mounts";
    raw_disk_outside_ = outside_.write("source.raw", std::string(24 << 20, 'd'));
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

  const educloud::testing::TempDir outside_;
  std::filesystem::path raw_disk_outside_;
  bool mounted_ = false;
};

TEST_F(FullDisk, CopyIsExhaustedAndLeavesNothing) {
  const auto result = copy_sparse(raw_disk_outside_, dir_ / "copy");
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::exhausted) << result.error().message;
  EXPECT_EQ(files_here(), 0U);
}

TEST_F(FullDisk, ConvertIsExhaustedAndLeavesNothing) {
  // 10 MiB of data fit once, not twice.
  dir_.write("disk.raw", std::string(10 << 20, 'd'));
  const auto result = convert_to_qcow2(request(at("disk.raw"), Format::raw));
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::exhausted) << result.error().message;
  expect_nothing_left();
  EXPECT_EQ(files_here(), 1U);
}

TEST_F(FullDisk, FlattenIsExhaustedAndLeavesNothing) {
  dir_.write("disk.raw", std::string(10 << 20, 'd'));
  ASSERT_TRUE(create_overlay(at("disk.raw"), Format::raw, at("overlay")));
  const auto result = flatten(
      {.overlay = at("overlay"), .base = at("disk.raw"), .base_format = Format::raw, .output = at("flat")});
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::exhausted) << result.error().message;
  EXPECT_FALSE(std::filesystem::exists(dir_ / "flat"));
}

}  // namespace
}  // namespace educloud::image
