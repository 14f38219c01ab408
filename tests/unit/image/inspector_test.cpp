#include "common/image/inspector.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "refused.hpp"

namespace educloud::image {
namespace {

using ::testing::AllOf;
using testing::expect_refused;
using ::testing::HasSubstr;
using testing::in_memory;
using testing::inspect_bytes;
using ::testing::Not;
using testing::Qcow2;

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
  EXPECT_THAT(result.error().message,
              AllOf(HasSubstr("'a?[31m??xxx"), Not(HasSubstr("\x1b")), HasSubstr("...")));
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

TEST(Qcow2Inspector, UnknownExtension) {
  expect_refused(Qcow2{}.extension(0x12345678, "x"), {"extension 0x12345678"});
}

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
  for (const std::uint64_t offset :
       {std::uint64_t{0}, std::uint64_t{5} << 16, ~std::uint64_t{0} << 16, std::uint64_t{100}}) {
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
  for (const std::size_t length :
       {4UL, 8UL, 71UL, 72UL, 103UL, 104UL, 112UL, 512UL, 65536UL, 131072UL, 196608UL}) {
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
  EXPECT_FALSE(inspect_overlay(in_memory(Qcow2{}.backing("/storage/base").bytes()).get(), "/storage/base",
                               Format::raw));
  EXPECT_FALSE(inspect_overlay(in_memory(Qcow2{}.bytes()).get(), "/storage/base", Format::raw));
}

}  // namespace
}  // namespace educloud::image
