#include "common/image/inspector.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "refused.hpp"
#include "support/temp_dir.hpp"

namespace educloud::image {
namespace {

using testing::expect_refused;
using ::testing::HasSubstr;
using testing::in_memory;
using testing::inspect_bytes;
using testing::Qcow2;

TEST(VmdkInspector, TakesASingleFile) {
  const auto header = inspect_bytes(
      testing::vmdk("# Disk DescriptorFile\nparentCID=ffffffff\ncreateType=\"streamOptimized\"\n"));
  ASSERT_TRUE(header) << header.error().message;
  EXPECT_EQ(header->format, Format::vmdk);
  EXPECT_EQ(header->virtual_size_bytes, 1U << 20);
}

TEST(VmdkInspector, RefusesWhatNamesOtherFiles) {
  expect_refused("# Disk DescriptorFile\nRW 2048 FLAT \"/etc/shadow\" 0\n",
                 {"text descriptor", "qcow2, raw, vdi"});
  expect_refused("# Disk DescriptorFile\n", {"text descriptor"}, Format::raw);
  expect_refused(testing::vmdk("createType=\"monolithicSparse\"\nparentFileNameHint=\"/etc/shadow\"\n"),
                 {"parent file '/etc/shadow'"});
  expect_refused(testing::vmdk("createType=\"monolithicSparse\"\nPARENTFILENAMEHINT=\"x\"\n"),
                 {"parent file 'x'"});
  expect_refused(testing::vmdk("parentCID=12345678\ncreateType=\"monolithicSparse\"\n"), {"difference"});
  expect_refused(testing::vmdk("createType=\"twoGbMaxExtentSparse\"\n"), {"twoGbMaxExtentSparse"});
  expect_refused(testing::vmdk(""), {"its type is ''"});
}

TEST(VmdkInspector, RefusesADescriptorThatQemuWouldFollow) {
  const auto descriptor = "createType=\"monolithicSparse\"\n";
  expect_refused(testing::vmdk(descriptor, 0), {"capacity is 0"});
  expect_refused(testing::vmdk(descriptor, 2048, 2), {"descriptor is at sector 2"});
  expect_refused(testing::vmdk(descriptor, ~0ull), {"capacity is out of range"});
}

TEST(VdiInspector, TakesDynamicAndFixed) {
  EXPECT_EQ(inspect_bytes(testing::vdi(1))->format, Format::vdi);
  EXPECT_EQ(inspect_bytes(testing::vdi(2))->virtual_size_bytes, 1U << 20);
}

TEST(VdiInspector, RefusesDifferences) {
  expect_refused(testing::vdi(4), {"difference"});
  auto linked = testing::vdi();
  testing::put(linked, 0x1b8, "parent-uuid-1234");
  expect_refused(linked, {"difference"});
  expect_refused(testing::vdi(1, 0), {"0 bytes"});
  expect_refused(testing::vdi().substr(0, 300), {"ends inside its header"});
}

TEST(VhdxInspector, TakesAStandaloneDisk) {
  const auto header = inspect_bytes(testing::vhdx(5 << 20));
  ASSERT_TRUE(header) << header.error().message;
  EXPECT_EQ(header->format, Format::vhdx);
  EXPECT_EQ(header->virtual_size_bytes, 5U << 20);
}

TEST(VhdxInspector, RefusesDifferencesAndDamage) {
  expect_refused(testing::vhdx(1 << 20, true), {"difference"});
  expect_refused(testing::vhdx().substr(0, 100'000), {"damaged"});
  auto far = testing::vhdx();
  testing::put_le(far, 192 * 1024 + 32, 8, ~0ull);
  expect_refused(far, {"damaged"});
}

TEST(RawInspector, TakesAnythingElse) {
  for (const std::string text : {"json:{\"driver\":\"file\",\"filename\":\"/etc/shadow\"}", "x",
                                 "\x7f"
                                 "ELF",
                                 "nbd://host/"}) {
    const auto header = inspect_bytes(text);
    ASSERT_TRUE(header) << header.error().message;
    EXPECT_EQ(header->format, Format::raw);
    EXPECT_EQ(header->virtual_size_bytes, text.size());
  }
}

TEST(RawInspector, EmptyAndTooLarge) {
  expect_refused("", {"empty"});
  const auto result = inspect_bytes("12345", std::nullopt, {.max_file_bytes = 4});
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::too_large);
}

TEST(RawInspector, DeclarationMustFitTheHeader) {
  expect_refused(Qcow2{}.bytes(), {"declared as raw", "qcow2"}, Format::raw);
  expect_refused(testing::vdi(), {"declared as vmdk", "vdi"}, Format::vmdk);
  expect_refused("nothing", {"declared as qcow2", "no qcow2 header"}, Format::qcow2);
  EXPECT_TRUE(inspect_bytes(Qcow2{}.bytes(), Format::qcow2));
}

TEST(RawInspector, KnownButUnsupportedFormatsAreNamed) {
  expect_refused(std::string("COWD") + std::string(600, '\0'), {"ESX COW"});
  expect_refused(std::string("QED\0", 4) + std::string(600, '\0'), {"QED"});
  expect_refused("conectix" + std::string(600, '\0'), {"VHD", "-f vpc"});
  expect_refused("WithoutFreeSpace", {"Parallels"});
  expect_refused("LUKS\xba\xbe", {"LUKS"});
}

TEST(RawInspector, ArchivesAndFixedVhdOnlyIfTheUserInsists) {
  const auto vhd = std::string(1024, 'd') + "conectix" + std::string(504, '\0');
  expect_refused(vhd, {"VHD footer", "declare it as raw"});
  EXPECT_TRUE(inspect_bytes(vhd, Format::raw));
  expect_refused("\x1f\x8b\x08...", {"gzip", "unpack"});
  EXPECT_TRUE(inspect_bytes("\x1f\x8b\x08...", Format::raw));
  auto tar = std::string(1024, '\0');
  testing::put(tar, 257, "ustar");
  expect_refused(tar, {"tar archive"});
}

TEST(Inspector, OnlyOrdinaryFiles) {
  EXPECT_EQ(inspect_file("/dev/null").error().code, ErrorCode::invalid_argument);
  EXPECT_EQ(inspect_file("/no/such/file").error().code, ErrorCode::not_found);
  const educloud::testing::TempDir dir;
  const auto file = dir.write("image", "raw");
  std::filesystem::create_symlink(file, dir / "link");
  EXPECT_TRUE(inspect_file(file));
  EXPECT_FALSE(inspect_file(dir / "link"));
}

TEST(Inspector, LeavesThePositionAlone) {
  const auto fd = in_memory(Qcow2{}.bytes());
  ::lseek(fd.get(), 7, SEEK_SET);
  ASSERT_TRUE(inspect(fd.get()));
  EXPECT_EQ(::lseek(fd.get(), 0, SEEK_CUR), 7);
}

TEST(Inspector, FormatNames) {
  for (const auto format : {Format::raw, Format::qcow2, Format::vdi, Format::vmdk, Format::vhdx}) {
    EXPECT_EQ(parse_format(to_string(format)).value(), format);
  }
  const auto unknown = parse_format("qed\n");
  EXPECT_THAT(unknown.error().message, HasSubstr("'qed?'"));
}

// Every single byte of a good header set to a few nasty values: never a crash, and a backing file
// or data file never slips through.
TEST(Inspector, SpoiltHeadersNeverNameAFile) {
  const auto good = Qcow2{}.bytes();
  for (std::size_t at = 4; at < 128; ++at) {
    for (const char value : {'\x01', '\x7f', '\x80', '\xff', '\x10'}) {
      auto bytes = good;
      bytes[at] = value;
      const auto result = inspect_bytes(bytes);
      if (!result) continue;
      EXPECT_TRUE(bytes.substr(8, 12) == std::string(12, '\0')) << at;
      EXPECT_EQ(bytes[79] & 4, 0) << at;
    }
  }
}

}  // namespace
}  // namespace educloud::image
