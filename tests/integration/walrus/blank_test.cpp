// Disks for servers' data, made on a real store by the real mke2fs.
#include <gmock/gmock.h>

#include "integration/walrus/fixture.hpp"

namespace educloud::walrus {
namespace {

using ::testing::HasSubstr;

constexpr std::int64_t kGib = std::int64_t{1} << 30;

msg::Command blank(int version, std::int64_t disk_bytes) {
  auto command = make_command("image/blank", version);
  command.disk_bytes = disk_bytes;
  return command;
}

class Blank : public WalrusTest {
 protected:
  transfer::Receipt receipt_of(const msg::TaskStatus& status) {
    EXPECT_EQ(status.event, "submitted") << status.errormsg;
    auto receipt = transfer::verify_receipt(kKey, status.receipt);
    EXPECT_TRUE(receipt) << receipt.error().message;
    return receipt.value_or(transfer::Receipt{});
  }
};

TEST_F(Blank, IsASoundFileSystemNamedDatabase) {
  const auto command = blank(1, kGib);
  const auto receipt = receipt_of(order(command));
  EXPECT_EQ(receipt.imgid, kImage);
  EXPECT_EQ(receipt.version, 1);
  EXPECT_EQ(receipt.cmdid, command.cmdid);
  EXPECT_EQ(receipt.virtual_size_bytes, kGib);
  EXPECT_LT(receipt.size_bytes, 64 << 20) << "it is empty";
  const auto file = exported(1);
  run({"e2fsck", "-f", "-n", file.string()});
  const auto header = run({"dumpe2fs", "-h", file.string()});
  EXPECT_THAT(header, HasSubstr("Filesystem volume name:   database"));
  EXPECT_THAT(header, HasSubstr("01234567-0000-4000-8000-000001234567"));
  expect_sound();
  expect_no_leftovers();
}

TEST_F(Blank, IsMadeOnceHoweverOftenItIsAsked) {
  const auto command = blank(1, kGib);
  const auto first = receipt_of(order(command));
  stop();
  start();
  auto again = command;
  again.cmdid = new_command_id().str();
  again.target_version = 2;
  again.attempt = 2;
  const auto second = receipt_of(order(again));
  EXPECT_EQ(second.digest, first.digest) << "the same bytes: a try that was killed can be recognised";
  EXPECT_EQ(current(), 2);
  auto taken = again;
  taken.cmdid = new_command_id().str();
  taken.attempt = 3;
  taken.disk_bytes = 2 * kGib;
  const auto third = receipt_of(order(taken));
  EXPECT_EQ(third.digest, first.digest) << "a version that is published never changes";
  EXPECT_EQ(third.virtual_size_bytes, kGib);
  expect_sound();
}

TEST_F(Blank, ATemplateIsTakenAsItIs) {
  stop();
  config_.database_template = make_image("template.qcow2", "qcow2");
  start();
  const auto receipt = receipt_of(order(blank(1, kGib)));
  EXPECT_EQ(receipt.virtual_size_bytes, 20 << 20);
  EXPECT_EQ(content(1), educloud::testing::slurp(raw()));
  EXPECT_TRUE(std::filesystem::exists(config_.database_template));
  expect_no_leftovers();
}

TEST_F(Blank, AMissingTemplateIsSaid) {
  stop();
  config_.database_template = dir_ / "nowhere.qcow2";
  start();
  const auto status = order(blank(1, kGib));
  EXPECT_EQ(status.event, "failed");
  EXPECT_THAT(status.errormsg, HasSubstr("nowhere.qcow2"));
}

}  // namespace
}  // namespace educloud::walrus
