#include "cc/domain/peer_table.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace educloud::cc {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Member = PeerTable::Member;

const std::string kImage = "IMG00000001";
const std::string kDigest(64, 'd');

TEST(PeerTable, ThoseWhoAskedLatelyAreNeighbours) {
  PeerTable table;
  table.join(kImage, 1, "nc1", false, 0);
  table.join(kImage, 1, "nc2", false, 5'000);
  table.join(kImage, 2, "nc3", false, 5'000);
  EXPECT_THAT(table.members(kImage, 1, kDigest, "nc1", 6'000), ElementsAre(Member{"nc2", false}));
  EXPECT_THAT(table.members(kImage, 1, kDigest, "nc9", 15'000),
              ElementsAre(Member{"nc1", false}, Member{"nc2", false}));
  EXPECT_THAT(table.members(kImage, 1, kDigest, "nc9", 15'001), ElementsAre(Member{"nc2", false}));
  EXPECT_THAT(table.members(kImage, 1, kDigest, "nc9", 20'001), IsEmpty());
}

TEST(PeerTable, AHeartbeatNamesWhoHasAllOfIt) {
  PeerTable table;
  table.join(kImage, 1, "nc1", false, 0);
  table.remember("nc2", {{kImage, 1, kDigest}, {kImage, 2, kDigest}}, 0);
  table.remember("nc3", {{kImage, 1, std::string(64, 'e')}}, 0);
  EXPECT_THAT(table.members(kImage, 1, kDigest, "nc9", 1'000),
              ElementsAre(Member{"nc2", true}, Member{"nc1", false}));
  EXPECT_THAT(table.members(kImage, 1, "", "nc9", 1'000), ElementsAre(Member{"nc1", false}))
      << "without a digest to compare with no heartbeat is believed";
  table.remember("nc2", {}, 2'000);  // removed there
  EXPECT_THAT(table.members(kImage, 1, kDigest, "nc9", 3'000), ElementsAre(Member{"nc1", false}));
  table.remember("nc1", {{kImage, 1, kDigest}}, 4'000);
  EXPECT_THAT(table.members(kImage, 1, kDigest, "nc9", 5'000), ElementsAre(Member{"nc1", true}));
  EXPECT_THAT(table.members(kImage, 1, kDigest, "nc9", 20'000), IsEmpty());
}

TEST(PeerTable, ItIsBoundedAndCompleteOnesGoFirst) {
  PeerTable table;
  for (int i = 0; i < 2'000; ++i) table.join(kImage, 1, "nc" + std::to_string(i), i == 999, 0);
  const auto members = table.members(kImage, 1, kDigest, "nc0", 1);
  ASSERT_EQ(members.size(), PeerTable::kMaxMembers);
  EXPECT_EQ(members.front(), (Member{"nc999", true}));
  for (int i = 1; i < 3'000; ++i) table.join(kImage, i, "nc1", false, 0);
  EXPECT_THAT(table.members(kImage, 2'999, kDigest, "nc0", 1), IsEmpty());
  table.join(kImage, 2'999, "nc1", false, 20'000);  // the old ones are forgotten by then
  EXPECT_THAT(table.members(kImage, 2'999, kDigest, "nc0", 20'001), ElementsAre(Member{"nc1", false}));
  EXPECT_THAT(table.members(kImage, 1, kDigest, "nc0", 20'001), IsEmpty());
}

}  // namespace
}  // namespace educloud::cc
