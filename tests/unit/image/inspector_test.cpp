#include "common/image/inspector.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include "crafted.hpp"
#include "support/temp_dir.hpp"

namespace educloud::image {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::in_memory;
using testing::inspect_bytes;
using testing::Qcow2;

/// Refused as invalid, and the message says all of `words`.
void expect_refused(const std::string& bytes, std::initializer_list<std::string> words,
                    std::optional<Format> declared = std::nullopt) {
  const auto result = inspect_bytes(bytes, declared);
  ASSERT_FALSE(result) << "accepted as " << to_string(result->format);
  EXPECT_EQ(result.error().code, ErrorCode::invalid_argument) << result.error().message;
  for (const auto& word : words) EXPECT_THAT(result.error().message, HasSubstr(word));
}

void expect_refused(const Qcow2& image, std::initializer_list<std::string> words) {
  expect_refused(image.bytes(), words);
}

TEST(Qcow2Inspector, TakesAStandaloneImage) {
  const auto header = inspect_bytes(Qcow2{}.bytes());
  ASSERT_TRUE(header) << header.error().message;
  EXPECT_EQ(header->format, Format::qcow2);
  EXPECT_EQ(header->version, 3);
  EXPECT_EQ(header->virtual_size_bytes, 64U << 20);
  EXPECT_EQ(header->file_size_bytes, 4U << 16);
  EXPECT_EQ(header->cluster_bits, 16);
  EXPECT_EQ(header->compression, "zlib");
}

TEST(Qcow2Inspector, TakesVersion2) {
  Qcow2 image;
  image.version = 2;
  const auto header = inspect_bytes(image.bytes());
  ASSERT_TRUE(header) << header.error().message;
  EXPECT_EQ(header->version, 2);
}

TEST(Qcow2Inspector, TakesHarmlessExtensionsAndFeatures) {
  Qcow2 image;
  image.extension(0x6803f857, std::string(96, 'n')).extension(0x23852875, std::string(24, 'b'));
  image.incompatible = 8 | 16;  // zstd, subclusters
  image.compression = 1;
  image.compatible = 1;
  const auto header = inspect_bytes(image.bytes());
  ASSERT_TRUE(header) << header.error().message;
  EXPECT_EQ(header->compression, "zstd");
  EXPECT_TRUE(header->extended_l2);
}

TEST(Qcow2Inspector, BackingFileIsNamedWithTheRemedy) {
  expect_refused(Qcow2{}.backing("/etc/shadow"),
                 {"backing file '/etc/shadow'", "flatten it first: qemu-img convert -O qcow2"});
}

TEST(Qcow2Inspector, BackingFileOfVersion2) {
  Qcow2 image;
  image.version = 2;
  expect_refused(image.backing("base.img"), {"backing file 'base.img'"});
}

TEST(Qcow2Inspector, BackingNameIsCleanedAndCut) {
  const auto result = inspect_bytes(Qcow2{}.backing("a\x1b[31m\n\xff" + std::string(900, 'x')).bytes());
  ASSERT_FALSE(result);
  EXPECT_THAT(result.error().message, AllOf(HasSubstr("'a?[31m??xxx"), Not(HasSubstr("\x1b")), HasSubstr("...")));
  EXPECT_LT(result.error().message.size(), 400U);
}

TEST(Qcow2Inspector, BackingOffsetOutsideTheHeader) {
  Qcow2 image;
  image.backing("x", 1ull << 40);
  expect_refused(image, {"backing file"});
  image.backing_offset = ~0ull;
  expect_refused(image, {"backing file"});
}

TEST(Qcow2Inspector, BackingSizeWithoutOffset) {
  Qcow2 image;
  image.backing_size = 5;
  expect_refused(image, {"backing file"});
}

TEST(Qcow2Inspector, BackingFormatExtensionAlone) {
  expect_refused(Qcow2{}.extension(0xe2792aca, "raw"), {"backing format"});
}

TEST(Qcow2Inspector, ExternalDataFileIsNamed) {
  Qcow2 image;
  image.incompatible = 4;
  expect_refused(image.extension(0x44415441, "/dev/sda"), {"another file, '/dev/sda'", "flatten it first"});
}

TEST(Qcow2Inspector, ExternalDataFileByBitOnlyOrNameOnly) {
  Qcow2 bit;
  bit.incompatible = 4;
  expect_refused(bit, {"another file"});
  expect_refused(Qcow2{}.extension(0x44415441, "x"), {"another file, 'x'"});
}

TEST(Qcow2Inspector, UnknownIncompatibleFeature) {
  Qcow2 image;
  image.incompatible = 1ull << 5;
  expect_refused(image, {"unknown incompatible features 0x20"});
  image.incompatible = 1ull << 63;
  expect_refused(image, {"unknown incompatible features 0x8000000000000000"});
}

TEST(Qcow2Inspector, DirtyAndCorrupt) {
  Qcow2 image;
  image.incompatible = 1;
  expect_refused(image, {"dirty", "qemu-img check -r all"});
  image.incompatible = 2;
  expect_refused(image, {"corrupt", "qemu-img check -r all"});
}

TEST(Qcow2Inspector, Encryption) {
  Qcow2 aes;
  aes.crypt_method = 1;
  expect_refused(aes, {"encrypted (method 1)"});
  Qcow2 luks;
  luks.crypt_method = 2;
  expect_refused(luks.extension(0x0537be77, std::string(16, 'k')), {"encrypted (method 2)"});
  expect_refused(Qcow2{}.extension(0x0537be77, std::string(16, 'k')), {"encrypted"});
}

TEST(Qcow2Inspector, InternalSnapshots) {
  Qcow2 image;
  image.snapshots = 2;
  expect_refused(image, {"2 internal snapshots", "flatten it first"});
}

TEST(Qcow2Inspector, UnknownExtension) { expect_refused(Qcow2{}.extension(0x12345678, "x"), {"extension 0x12345678"}); }

TEST(Qcow2Inspector, ExtensionLongerThanTheCluster) {
  Qcow2 image;
  testing::put_be(image.extensions, 0, 4, 0x6803f857);
  testing::put_be(image.extensions, 4, 4, 0xffffffff);
  expect_refused(image, {"reaches out of the first cluster"});
}

TEST(Qcow2Inspector, TooManyExtensions) {
  Qcow2 image;
  for (int i = 0; i < 100; ++i) image.extension(0x6803f857, "");
  expect_refused(image, {"more than 64 header extensions"});
}

TEST(Qcow2Inspector, Version) {
  Qcow2 image;
  image.version = 4;
  expect_refused(image, {"version 4"});
  image.version = 1;
  expect_refused(image, {"qcow version 1"});
}

TEST(Qcow2Inspector, ClusterBits) {
  for (const std::uint32_t bits : {0U, 8U, 22U, 64U, 0xffffffffU}) {
    Qcow2 image;
    image.cluster_bits = bits;
    expect_refused(image, {"cluster_bits"});
  }
}

TEST(Qcow2Inspector, ClusterSizesFromSmallestToLargest) {
  for (const std::uint32_t bits : {9U, 12U, 21U}) {
    Qcow2 image;
    image.cluster_bits = bits;
    image.size = 4096;
    image.refcount_offset = 1ull << bits;
    image.l1_offset = 2ull << bits;
    image.file_bytes = 4ull << bits;
    const auto header = inspect_bytes(image.bytes());
    EXPECT_TRUE(header) << bits << ": " << header.error().message;
  }
}

TEST(Qcow2Inspector, HeaderLength) {
  for (const std::uint32_t length : {0U, 72U, 96U, 105U, 1U << 17, 0xffffffffU}) {
    Qcow2 image;
    auto bytes = image.bytes();
    testing::put_be(bytes, 100, 4, length);
    expect_refused(bytes, {"header length"});
  }
}

TEST(Qcow2Inspector, CompressionType) {
  Qcow2 image;
  image.compression = 2;
  image.incompatible = 8;
  expect_refused(image, {"compression type 2"});
  image.compression = 1;
  image.incompatible = 0;
  expect_refused(image, {"compression type 1"});
  image.compression = 0;
  image.incompatible = 8;
  expect_refused(image, {"compression type 0"});
}

TEST(Qcow2Inspector, RefcountOrder) {
  Qcow2 image;
  image.refcount_order = 7;
  expect_refused(image, {"refcount_order 7"});
}

TEST(Qcow2Inspector, ExtendedL2NeedsLargeClusters) {
  Qcow2 image;
  image.incompatible = 16;
  image.cluster_bits = 12;
  expect_refused(image, {"extended L2"});
}

TEST(Qcow2Inspector, L1TableMustBeInTheFile) {
  for (const std::uint64_t offset : {std::uint64_t{0}, std::uint64_t{5} << 16, ~std::uint64_t{0} << 16, std::uint64_t{100}}) {
    Qcow2 image;
    image.l1_offset = offset;
    expect_refused(image, {"L1 table"});
  }
}

TEST(Qcow2Inspector, L1TableTooLargeOrTooSmall) {
  Qcow2 image;
  image.l1_size = 0xffffffff;
  expect_refused(image, {"L1 table", "too large"});
  image.l1_size = 0;
  expect_refused(image, {"needs 1 L1 entries, the table has 0"});
  image.l1_size = 1;
  image.size = (512ull << 20) + 1;
  expect_refused(image, {"needs 2 L1 entries"});
}

TEST(Qcow2Inspector, RefcountTable) {
  Qcow2 image;
  image.refcount_clusters = 0;
  expect_refused(image, {"refcount table"});
  image.refcount_clusters = 0xffffffff;
  expect_refused(image, {"refcount table"});
  image.refcount_clusters = 1;
  for (const std::uint64_t offset : {std::uint64_t{0}, std::uint64_t{4} << 16, std::uint64_t{7}}) {
    image.refcount_offset = offset;
    expect_refused(image, {"refcount table"});
  }
}

TEST(Qcow2Inspector, VirtualSize) {
  Qcow2 image;
  image.size = 0;
  expect_refused(image, {"0 bytes"});
  image.size = ~0ull;
  auto result = inspect_bytes(image.bytes());
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::too_large);
  image.size = 64 << 20;
  result = inspect_bytes(image.bytes(), std::nullopt, {.max_virtual_bytes = (64 << 20) - 1});
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::too_large);
  EXPECT_THAT(result.error().message, HasSubstr("67108864"));
  EXPECT_TRUE(inspect_bytes(image.bytes(), std::nullopt, {.max_virtual_bytes = 64 << 20}));
}

TEST(Qcow2Inspector, EveryCutOfTheFileIsRefused) {
  const auto whole = Qcow2{}.bytes();
  for (const std::size_t length : {4UL, 8UL, 71UL, 72UL, 103UL, 104UL, 112UL, 512UL, 65536UL, 131072UL, 196608UL}) {
    expect_refused(whole.substr(0, length), {"qcow2 image refused"});
  }
}

TEST(OverlayInspector, TakesOnlyTheExpectedBase) {
  const auto overlay = [](std::string_view file, std::string_view format) {
    Qcow2 image;
    image.extension(0xe2792aca, format).backing(file);
    return in_memory(image.bytes());
  };
  EXPECT_TRUE(inspect_overlay(overlay("/storage/base", "qcow2").get(), "/storage/base", Format::qcow2));
  EXPECT_TRUE(inspect_overlay(overlay("/storage/base", "raw").get(), "/storage/base", Format::raw));
  const auto other = inspect_overlay(overlay("/etc/shadow", "raw").get(), "/storage/base", Format::raw);
  ASSERT_FALSE(other);
  EXPECT_THAT(other.error().message, HasSubstr("'/etc/shadow', not '/storage/base'"));
  EXPECT_FALSE(inspect_overlay(overlay("/storage/base", "raw").get(), "/storage/base", Format::qcow2));
  EXPECT_FALSE(inspect_overlay(overlay("json:{}", "raw").get(), "/storage/base", Format::raw));
  EXPECT_FALSE(inspect_overlay(in_memory(Qcow2{}.backing("/storage/base").bytes()).get(), "/storage/base", Format::raw));
  EXPECT_FALSE(inspect_overlay(in_memory(Qcow2{}.bytes()).get(), "/storage/base", Format::raw));
}

TEST(VmdkInspector, TakesASingleFile) {
  const auto header = inspect_bytes(testing::vmdk("# Disk DescriptorFile\nparentCID=ffffffff\ncreateType=\"streamOptimized\"\n"));
  ASSERT_TRUE(header) << header.error().message;
  EXPECT_EQ(header->format, Format::vmdk);
  EXPECT_EQ(header->virtual_size_bytes, 1U << 20);
}

TEST(VmdkInspector, RefusesWhatNamesOtherFiles) {
  expect_refused("# Disk DescriptorFile\nRW 2048 FLAT \"/etc/shadow\" 0\n", {"text descriptor", "qcow2, raw, vdi"});
  expect_refused("# Disk DescriptorFile\n", {"text descriptor"}, Format::raw);
  expect_refused(testing::vmdk("createType=\"monolithicSparse\"\nparentFileNameHint=\"/etc/shadow\"\n"),
                 {"parent file '/etc/shadow'"});
  expect_refused(testing::vmdk("createType=\"monolithicSparse\"\nPARENTFILENAMEHINT=\"x\"\n"), {"parent file 'x'"});
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
  for (const std::string text : {"json:{\"driver\":\"file\",\"filename\":\"/etc/shadow\"}", "x", "\x7f" "ELF", "nbd://host/"}) {
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
