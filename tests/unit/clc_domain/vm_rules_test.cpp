#include "clc/domain/vm_rules.hpp"

#include <gmock/gmock.h>

namespace educloud::clc {
namespace {

using testing::HasSubstr;

const std::string kKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN0123456789abcdefghijklmnopqrstuvwxyzABCDEF";

TEST(Limits, AreItsOwnWhereSetElseItsTypes) {
  const msg::Limits type{200, 50, 500, 0, 100};
  const auto got = effective_limits({0, 0, 300, 10, 0}, type);
  EXPECT_EQ(got, (msg::Limits{200, 50, 300, 10, 100}));
}

TEST(Limits, ChangeOnlyWhereTheyAreGiven) {
  LimitsChange change;
  change.disk_iops = 0;
  change.cpu_percent = 50;
  EXPECT_EQ(changed({100, 100, 500, 5, 1}, change), (msg::Limits{50, 100, 0, 5, 1}));
}

TEST(Limits, HaveAFloorThatTheRefusalNames) {
  EXPECT_TRUE(check_limits({}));
  EXPECT_TRUE(check_limits({10, 0, 0, 0, 0}));
  for (const int percent : {1, 9}) {
    const auto refused = check_limits({percent, 0, 0, 0, 0});
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().key, "cpu_percent");
    EXPECT_THAT(refused.error().message, HasSubstr("at least 10"));
  }
}

TEST(Limits, ExceedTheTypesOnlyWhereThatHasOne) {
  EXPECT_EQ(exceeding({400, 100, 9999, 9999, 9999}, {}), "");
  EXPECT_EQ(exceeding({101, 0, 0, 0, 0}, {100, 0, 0, 0, 0}), "cpu_percent");
  EXPECT_EQ(exceeding({0, 0, 0, 0, 0}, {100, 100, 1, 1, 1}), "") << "0 is the type's";
  EXPECT_EQ(exceeding({0, 101, 0, 0, 0}, {}), "cpu_weight") << "a type without a weight has the usual one";
  EXPECT_EQ(exceeding({0, 0, 11, 0, 0}, {0, 0, 10, 0, 0}), "disk_iops");
  EXPECT_EQ(exceeding({0, 0, 0, 11, 0}, {0, 0, 0, 10, 0}), "disk_mib_s");
  EXPECT_EQ(exceeding({0, 0, 0, 0, 11}, {0, 0, 0, 0, 10}), "net_mbit_s");
}

std::string key_of(const NewFirstBoot& wanted) {
  const auto ok = check_first_boot(wanted);
  return ok ? "" : ok.error().key;
}

TEST(FirstBoot, TakesWhatAGuestCanBeTold) {
  EXPECT_EQ(key_of({}), "");
  EXPECT_EQ(key_of({"lab-07", "ada", kKey + " ada@home", "correct horse"}), "");
  EXPECT_EQ(key_of({"a.school.example", "_svc-1", "", ""}), "");
}

TEST(FirstBoot, NamesTheKeyThatIsWrong) {
  for (const auto* bad : {"-a", "a-", "a b", "a..b", ".a", "a.", "a_b", "\xc3\xa4"})
    EXPECT_EQ(key_of({bad, "", "", ""}), "hostname") << bad;
  EXPECT_EQ(key_of({std::string(64, 'a'), "", "", ""}), "hostname");
  for (const auto* bad : {"Ada", "1a", "a b", "a:b", "-a", "a\n"})
    EXPECT_EQ(key_of({"", bad, "", ""}), "user") << bad;
  EXPECT_EQ(key_of({"", std::string(33, 'a'), "", ""}), "user");
  EXPECT_EQ(key_of({"", "", kKey, ""}), "user") << "whose key?";
  EXPECT_EQ(key_of({"", "", "", "secret"}), "user");
  for (const auto& bad :
       {std::string("ssh-dss ") + std::string(64, 'A'), std::string("ssh-ed25519"), kKey + "\nssh-rsa x",
        "command=\"x\" " + kKey, std::string("ssh-rsa short"), "ssh-rsa AAAA" + std::string(64, '*'),
        std::string("-----BEGIN OPENSSH PRIVATE KEY-----")})
    EXPECT_EQ(key_of({"", "ada", bad, ""}), "ssh_key") << bad;
  EXPECT_EQ(key_of({"", "ada", "", "two\nlines"}), "password");
  EXPECT_EQ(key_of({"", "ada", "", std::string(129, 'x')}), "password");
  EXPECT_EQ(check_first_boot({"", "ada", "", "hush\n"}).error().message.find("hush"), std::string::npos);
}

TEST(Names, OfTypesAndSnapshotsHaveOneForm) {
  for (const auto* good : {"vdsmall", "a", "win-11_x"}) EXPECT_TRUE(check_type_name(good)) << good;
  for (const auto* bad : {"", "1a", "A", "a/b", "a b", "-a"}) EXPECT_FALSE(check_type_name(bad)) << bad;
  EXPECT_FALSE(check_type_name(std::string(41, 'a')));
  EXPECT_TRUE(check_snapshot_id("snap-0123abcd"));
  for (const auto* bad : {"", "snap-", "snap-0123ABCD", "snap-0123abcde", "x", "../../0123abcd"})
    EXPECT_FALSE(check_snapshot_id(bad)) << bad;
}

}  // namespace
}  // namespace educloud::clc
