#include "nc/app/instance_record.hpp"

#include <gtest/gtest.h>

#include <fstream>

#include "support/temp_dir.hpp"

namespace educloud::nc {
namespace {

// A desktop's record is not synced: a power cut may leave an empty file, of an overlay that is worth nothing.
TEST(InstanceRecordTest, AnEmptyRecordIsNoneForADesktopAndDamageForABuild) {
  const educloud::testing::TempDir folder;
  const Layout layout(folder.path());
  for (const auto* name : {"VD00000001", "TVD00000001", "TMP00000001"}) {
    const auto insid = *InstanceId::parse(name);
    const InstanceRecord record{"IMG00000001:IMG00000001:" + std::string(name), "IMG00000001", 3};
    ASSERT_TRUE(write_record(layout, insid, record));
    EXPECT_EQ(**read_record(layout, insid), record);
    std::ofstream(layout.record(insid), std::ios::trunc).flush();
    const auto read = read_record(layout, insid);
    if (insid.str().starts_with("TMP")) {
      ASSERT_FALSE(read);
      EXPECT_EQ(read.error().code, ErrorCode::corrupt);
    } else {
      ASSERT_TRUE(read);
      EXPECT_FALSE(read->has_value());
    }
  }
  EXPECT_FALSE(all_records(layout));
}

}  // namespace
}  // namespace educloud::nc
