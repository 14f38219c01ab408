// The inspector on what the real qemu-img makes.
#include <gmock/gmock.h>

#include "qemu_fixture.hpp"

namespace educloud::image {
namespace {

using ::testing::HasSubstr;
using testing::tool;

class InspectReal : public testing::QemuTest {
 protected:
  void expect_refused(const std::string& path, std::initializer_list<std::string> words) {
    const auto result = inspect_file(path);
    ASSERT_FALSE(result) << path << " was accepted";
    EXPECT_EQ(result.error().code, ErrorCode::invalid_argument);
    for (const auto& word : words) EXPECT_THAT(result.error().message, HasSubstr(word));
  }
};

TEST_F(InspectReal, TakesEveryKindOfStandaloneQcow2) {
  int number = 0;
  for (const std::string option : {"compat=1.1", "compat=0.10", "cluster_size=512", "cluster_size=2097152",
                                   "lazy_refcounts=on", "extended_l2=on", "refcount_bits=1",
                                   "refcount_bits=64", "compression_type=zstd", "preallocation=metadata"}) {
    const auto path = at("q" + std::to_string(++number));
    tool({"qemu-img", "create", "-q", "-f", "qcow2", "-o", option, path, "64M"});
    const auto header = inspect_file(path);
    ASSERT_TRUE(header) << option << ": " << header.error().message;
    EXPECT_EQ(header->format, Format::qcow2);
    EXPECT_EQ(header->virtual_size_bytes, 64U << 20);
  }
}

TEST_F(InspectReal, TakesCompressedAndWithBitmap) {
  EXPECT_TRUE(inspect_file(disk_as("qcow2", {"-c", "-o", "compression_type=zstd"})));
  tool({"qemu-img", "bitmap", "--add", at("disk.qcow2"), "b0"});
  EXPECT_TRUE(inspect_file(at("disk.qcow2"))) << inspect_file(at("disk.qcow2")).error().message;
}

TEST_F(InspectReal, BackingFileIsNamed) {
  const auto base = disk_as("qcow2");
  tool({"qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, at("overlay")});
  expect_refused(at("overlay"), {"backing file '" + base + "'", "flatten it first: qemu-img convert"});
  tool({"qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", "/etc/shadow", at("evil"), "1M"});
  expect_refused(at("evil"), {"backing file '/etc/shadow'"});
  tool({"qemu-img", "create", "-q", "-u", "-f", "qcow2", "-o", "compat=0.10", "-F", "raw", "-b",
        "json:{\"driver\":\"file\",\"filename\":\"/etc/shadow\"}", at("json"), "1M"});
  expect_refused(at("json"), {"backing file 'json:{"});
}

TEST_F(InspectReal, ExternalDataFileIsNamed) {
  tool({"qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file=" + at("secret.raw"), at("external"),
        "1M"});
  expect_refused(at("external"), {"another file, '" + at("secret.raw") + "'", "flatten it first"});
}

TEST_F(InspectReal, EncryptionIsNamed) {
  // Not luks: qemu-img measures the CPU to make its key, and gives up where the clock is too coarse for that.
  tool({"qemu-img", "create", "-q", "-f", "qcow2", "--object", "secret,id=s,data=abc", "-o",
        "encrypt.format=aes,encrypt.key-secret=s", at("encrypted"), "1M"});
  expect_refused(at("encrypted"), {"encrypted (method 1)"});
}

TEST_F(InspectReal, InternalSnapshotIsRefused) {
  const auto image = disk_as("qcow2");
  tool({"qemu-img", "snapshot", "-c", "s1", image});
  expect_refused(image, {"1 internal snapshots", "flatten it first"});
}

TEST_F(InspectReal, VmdkWithExtentsIsRefused) {
  raw_disk();
  for (const std::string kind : {"monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"}) {
    const auto path = at(kind + ".vmdk");
    tool({"qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=" + kind, at("disk.raw"), path});
    expect_refused(path, {"VMDK text descriptor"});
  }
  tool({"qemu-img", "convert", "-f", "raw", "-O", "vmdk", at("disk.raw"), at("base.vmdk")});
  tool({"qemu-img", "create", "-q", "-f", "vmdk", "-F", "vmdk", "-b", at("base.vmdk"), at("child.vmdk")});
  expect_refused(at("child.vmdk"), {"parent file '" + at("base.vmdk") + "'"});
}

TEST_F(InspectReal, OtherFormatsAreNamedWithARemedy) {
  expect_refused(disk_as("qcow"), {"qcow version 1"});
  expect_refused(disk_as("qed"), {"QED"});
  expect_refused(disk_as("vpc"), {"VHD", "-f vpc"});
  expect_refused(disk_as("parallels"), {"Parallels"});
}

TEST_F(InspectReal, FixedVhdIsRefusedByItsFooter) {
  expect_refused(disk_as("vpc", {"-o", "subformat=fixed"}), {"VHD footer"});
}

}  // namespace
}  // namespace educloud::image
