#include <gtest/gtest.h>

#include <set>

#include "common/base/bytes.hpp"
#include "common/base/clock.hpp"
#include "common/base/ids.hpp"
#include "common/base/random.hpp"
#include "common/base/result.hpp"

namespace educloud {
namespace {

TEST(Ids, AcceptsOnlyTheContractsForms) {
  EXPECT_TRUE(ImageId::parse("IMG0123abcd"));
  EXPECT_TRUE(InstanceId::parse("VD00000001"));
  EXPECT_TRUE(InstanceId::parse("TVD00000001"));
  EXPECT_TRUE(InstanceId::parse("VS00000001"));
  EXPECT_TRUE(InstanceId::parse("TMPffffffff"));
  EXPECT_TRUE(HostName::parse("nc-1"));
  for (const char* bad : {"", "IMG", "IMG0123ABCD", "img0123abcd", "IMG0123abcde", "IMG0123abc/", "../../etc",
                          "IMG0123abc\n"}) {
    EXPECT_FALSE(ImageId::parse(bad)) << bad;
  }
  EXPECT_FALSE(ImageId::parse(std::string_view("IMG0123abc\0", 11)));
  for (const char* bad :
       {"", "-a", "a-", "A", "a.b", "a_b", "a/b", "01234567890123456789012345678901234567890"}) {
    EXPECT_FALSE(HostName::parse(bad)) << bad;
  }
}

TEST(Ids, RefusalNamesTheValueWithoutControlCharacters) {
  const auto refused = ImageId::parse("evil\x1b[2J");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::invalid_argument);
  EXPECT_NE(refused.error().message.find("evil?[2J"), std::string::npos) << refused.error().message;
}

TEST(Ids, TaskIdKeepsItsThreeParts) {
  const auto tid = TaskId::parse("IMG00000001:IMG00000002:TMP00000003");
  ASSERT_TRUE(tid);
  EXPECT_EQ(tid->str(), "IMG00000001:IMG00000002:TMP00000003");
  EXPECT_TRUE(tid->is_build());
  EXPECT_EQ(kind_of(tid->instance), InstanceKind::TMP);
  for (const char* bad : {"", ":", "::", "IMG00000001:IMG00000002",
                          "IMG00000001:IMG00000002:TMP00000003:", "IMG00000001::TMP00000003"}) {
    EXPECT_FALSE(TaskId::parse(bad)) << bad;
  }
}

TEST(Ids, NewOnesAreValidAndCommandsSortByTime) {
  std::set<std::string> seen;
  for (int i = 0; i < 1000; ++i) {
    const auto command = new_command_id();
    EXPECT_TRUE(CommandId::parse(command.str())) << command.str();
    EXPECT_TRUE(seen.insert(command.str()).second);
    EXPECT_NE(std::string("89ab").find(command.str()[19]), std::string::npos);
  }
  EXPECT_TRUE(ImageId::parse(new_image_id().str()));
  for (auto kind : {InstanceKind::VD, InstanceKind::TVD, InstanceKind::VS, InstanceKind::TMP}) {
    EXPECT_EQ(kind_of(new_instance_id(kind)), kind);
  }
}

TEST(Bytes, ReadsAndWritesUnits) {
  EXPECT_EQ(parse_bytes("20G")->count, 20ull << 30);
  EXPECT_EQ(parse_bytes("512")->count, 512u);
  EXPECT_EQ(to_string(Bytes{1536}), "1.5 KiB");
  EXPECT_EQ(to_string(3_GiB), "3.0 GiB");
  for (const char* bad : {"", "G", "-1", "1.5G", "20GB", "99999999999999999999", "18446744073709551615T"}) {
    EXPECT_FALSE(parse_bytes(bad)) << bad;
  }
}

TEST(Error, CodesMapToHttpAndBack) {
  for (auto code :
       {ErrorCode::unauthenticated, ErrorCode::permission_denied, ErrorCode::not_found, ErrorCode::conflict,
        ErrorCode::too_large, ErrorCode::exhausted, ErrorCode::unavailable, ErrorCode::timeout,
        ErrorCode::corrupt, ErrorCode::internal, ErrorCode::invalid_argument}) {
    EXPECT_EQ(from_http_status(http_status(code)), code) << to_string(code);
  }
  EXPECT_EQ(errno_error("open /x", ENOSPC).code, ErrorCode::exhausted);
}

TEST(Clock, ManualClockMovesOnlyByHand) {
  ManualClock clock;
  const auto before = clock.boot_ms();
  EXPECT_EQ(clock.boot_ms(), before);
  clock.advance(std::chrono::seconds(2));
  EXPECT_EQ(clock.boot_ms(), before + 2000);
}

}  // namespace
}  // namespace educloud
