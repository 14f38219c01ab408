#include "nc/app/boot_marker.hpp"

#include <gtest/gtest.h>

#include <fstream>

#include "support/temp_dir.hpp"

namespace educloud::nc {
namespace {

TEST(BootMarkerTest, TheSameForOneBootAndLargerAfterEachOther) {
  const educloud::testing::TempDir folder;
  EXPECT_EQ(*note_boot(folder.path(), "aa", 5000), 5000);
  EXPECT_EQ(*note_boot(folder.path(), "aa", 9000), 5000) << "nc was started again";
  EXPECT_EQ(*note_boot(folder.path(), "bb", 9000), 9000);
  EXPECT_EQ(*note_boot(folder.path(), "cc", 10), 9001) << "the clock was set back";
  EXPECT_EQ(*note_boot(folder.path(), "cc", 20'000), 9001);
}

TEST(BootMarkerTest, AMarkerThatCannotBeReadIsNone) {
  const educloud::testing::TempDir folder;
  for (const char* text : {"", "x", "12", "12x", "-4 aa", "99999999999999999999 aa"}) {
    std::ofstream(folder.path() / "boot", std::ios::trunc) << text;
    EXPECT_EQ(*note_boot(folder.path(), "aa", 7000), 7000) << text;
  }
  EXPECT_FALSE(note_boot(folder.path() / "nowhere", "aa", 7000));
}

TEST(BootMarkerTest, TheKernelTellsItsBootId) {
  const auto id = boot_id();
  ASSERT_TRUE(id) << id.error().message;
  EXPECT_EQ(id->size(), 36U);
  EXPECT_EQ(*boot_id(), *id);
}

}  // namespace
}  // namespace educloud::nc
