#include "nc/domain/shared_folder.hpp"

#include <gmock/gmock.h>

namespace educloud::nc {
namespace {

using ::testing::HasSubstr;

TEST(SharedFolders, AreExactlyThree) {
  const auto all = parse_folders(
      {{"d", "space/prv-data/ann.b-1", 0}, {"e", "space/pub-data", 0}, {"f", "space/software", 1}});
  ASSERT_TRUE(all);
  EXPECT_EQ((*all)[0].user, "ann.b-1");
  EXPECT_EQ((*all)[1].name(), "space/pub-data");
  EXPECT_TRUE((*all)[2].read_only);
}

TEST(SharedFolders, NothingElseIs) {
  for (const char* path : {"space",
                           "space/",
                           "space/software/",
                           "space/software/x",
                           "space/prv-data",
                           "space/prv-data/",
                           "space/prv-data/.",
                           "space/prv-data/..",
                           "space/prv-data/../software",
                           "space/prv-data/ann/x",
                           "space/prv-data/ann/",
                           "space/prv-data/Ann",
                           "space/prv-data/-rf",
                           "space/prv-data/a b",
                           "space/prv-data/ann\n",
                           "space/database",
                           "/etc",
                           "../etc",
                           "space/prv-data/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                           "VMs/VD00000001",
                           ""}) {
    EXPECT_FALSE(parse_folders({{"d", path, 0}})) << path;
  }
  EXPECT_FALSE(parse_folders({{"d", std::string("space/prv-data/a\0b", 18), 0}}));
}

TEST(SharedFolders, ADriveIsALetterOfItsOwn) {
  for (const char* drive : {"", "c", "D", "dd", "1", "../d", "]"}) {
    EXPECT_FALSE(parse_folders({{drive, "space/software", 0}})) << drive;
  }
  EXPECT_FALSE(parse_folders({{"d", "space/software", 0}, {"d", "space/pub-data", 0}}));
}

TEST(SharedFolders, SmbServesThemAndNothingElse) {
  auto folders = *parse_folders({{"d", "space/prv-data/ann", 0}, {"f", "space/software", 1}});
  folders[0].source = "/storage/space/prv-data/ann";
  const auto text = smb_config(folders, "/storage/VMs/VD00000001/smb/state", "libvirt-qemu");
  EXPECT_THAT(text, HasSubstr("[d]\n  path = /storage/space/prv-data/ann\n"));
  EXPECT_THAT(text, HasSubstr("follow symlinks = no"));
  EXPECT_THAT(text.substr(text.find("[d]"), text.find("[f]") - text.find("[d]")),
              HasSubstr("read only = no"));
  EXPECT_THAT(text.substr(text.find("[f]")), HasSubstr("read only = yes"));
  EXPECT_FALSE(is_plain_path("/a,b"));
  EXPECT_FALSE(is_plain_path("/a b"));
  EXPECT_FALSE(is_plain_path("/a%u"));
  EXPECT_TRUE(is_plain_path("/var/lib/educloud-1/VMs/VD00000001/smb"));
}

}  // namespace
}  // namespace educloud::nc
