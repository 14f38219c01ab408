#include <gmock/gmock.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "cli/init/init.hpp"
#include "cli/init/owner.hpp"

namespace educloud::cli {
namespace {

namespace fs = std::filesystem;

/// Root gives files to `nobody`, as the packages give them to `educloud`; others can only keep them.
std::string some_user() {
  if (::geteuid() == 0) return "nobody";
  const passwd* self = ::getpwuid(::geteuid());
  return self == nullptr ? "" : self->pw_name;
}

struct stat stat_of(const fs::path& path) {
  struct stat info {};
  EXPECT_EQ(::lstat(path.c_str(), &info), 0) << path;
  return info;
}

class OwnerTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "educloud-owner-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    dir_ = name;
    const passwd* user = ::getpwnam(some_user().c_str());
    ASSERT_NE(user, nullptr) << "the user who runs this has no name";
    uid_ = user->pw_uid;
    gid_ = user->pw_gid;
  }
  void TearDown() override { fs::remove_all(dir_); }

  InitArguments arguments() const {
    InitArguments out;
    out.host = "local";
    out.clusters = {"cc1"};
    out.nodes = {"nc1", "nc2"};
    out.addresses = {"nc2=10.0.0.2"};
    out.config_dir = dir_ / "etc";
    out.state_dir = dir_ / "lib";
    out.prefix = dir_ / "storage";
    out.owner = some_user();
    return out;
  }

  fs::path dir_;
  uid_t uid_ = 0;
  gid_t gid_ = 0;
};

TEST_F(OwnerTest, GetsSecretsAndDatabaseAndNothingElse) {
  const auto ask = []() -> Result<std::string> { return std::string("a-long-enough-password-1"); };
  for (int round = 0; round < 2; ++round) {
    auto report = run_init(arguments(), ask);
    ASSERT_TRUE(report) << report.error().message;
    std::size_t secrets = 0;
    for (const auto& entry : fs::recursive_directory_iterator(dir_)) {
      const auto info = stat_of(entry.path());
      const bool is_secret = entry.path().parent_path().filename() == "secrets";
      const bool is_database = entry.path().filename().string().starts_with("clc.sqlite");
      secrets += is_secret ? 1 : 0;
      if (is_secret || is_database) {
        EXPECT_EQ(info.st_mode & 07777, 0600u) << entry.path();
        EXPECT_EQ(info.st_uid, uid_) << entry.path();
      } else if (entry.path().filename() == "secrets") {
        EXPECT_EQ(info.st_mode & 07777, 0750u) << entry.path();
        EXPECT_EQ(info.st_uid, ::geteuid()) << entry.path();
        EXPECT_EQ(info.st_gid, gid_) << entry.path();
      } else if (entry.path() == dir_ / "lib" / "clc") {
        EXPECT_EQ(info.st_uid, uid_) << entry.path();
      } else {
        EXPECT_EQ(info.st_uid, ::geteuid()) << entry.path();
      }
    }
    EXPECT_EQ(secrets,
              15u);  // data_key, 6 passwords, 2 keys of each node, sftp_host_key, nc2's bundle with 3
  }
}

TEST_F(OwnerTest, IsNotGivenWhatALinkNames) {
  auto owner = find_owner(arguments());
  ASSERT_TRUE(owner && *owner);
  const fs::path target = dir_ / "target";
  std::ofstream(target) << "not his";
  fs::create_symlink(target, dir_ / "link");
  EXPECT_FALSE(give_file(dir_ / "link", *owner));
  fs::create_hard_link(target, dir_ / "twin");
  EXPECT_FALSE(give_file(dir_ / "twin", *owner));
  EXPECT_EQ(stat_of(target).st_uid, ::geteuid());
}

TEST_F(OwnerTest, MustExist) {
  auto without = arguments();
  without.owner.clear();
  auto owner = find_owner(without);
  ASSERT_TRUE(owner);
  EXPECT_FALSE(*owner) << "only the packages' own directory has an owner by itself";
  without.owner = "no-such-user";
  owner = find_owner(without);
  ASSERT_FALSE(owner);
  EXPECT_EQ(owner.error().key, "owner");
}

}  // namespace
}  // namespace educloud::cli
