#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "nc/cache/frame_ring.hpp"
#include "nc/cache/peer_set.hpp"

namespace educloud::nc {
namespace {

nlohmann::json member(const std::string& node, const std::string& url = "http://10.0.0.1:8778",
                      const std::string& grant = "node=nc1&expires=1&sig=ab") {
  return {{"node", node}, {"url", url}, {"complete", true}, {"grant", grant}};
}

TEST(Rendezvous, GroupsAreSharedOutEvenlyAndMoveLittle) {
  const std::vector<std::string> three{"nc1", "nc2", "nc3"}, four{"nc1", "nc2", "nc3", "nc4"};
  std::map<std::string, int> count;
  int moved = 0;
  for (std::uint32_t group = 0; group < 4000; ++group) {
    const auto before = home_of(three, group), after = home_of(four, group);
    ++count[before];
    if (before != after) {
      EXPECT_EQ(after, "nc4");
      ++moved;
    }
  }
  for (const auto& node : three) EXPECT_NEAR(count[node], 4000 / 3, 150);
  EXPECT_NEAR(moved, 1000, 150);
}

TEST(Rendezvous, TheOrderOfNamesDoesNotMatter) {
  for (std::uint32_t group = 0; group < 100; ++group)
    EXPECT_EQ(home_of({"a", "b", "c"}, group), home_of({"c", "a", "b"}, group));
}

TEST(ParsePeers, LeavesOutWhatMakesNoSense) {
  const nlohmann::json answer{
      {"enabled", true},
      {"members",
       {member("nc1"), member("nc2"), member("nc2"), member("../x"), member("nc3", "ftp://x"),
        member("nc4", "http://10.0.0.1:1", "a b\r\nX: y"), 5, nlohmann::json::object()}}};
  const auto parsed = parse_peers(answer, "nc1");
  ASSERT_TRUE(parsed);
  ASSERT_EQ(parsed->members.size(), 1U);
  EXPECT_EQ(parsed->members[0].node, "nc2");
  EXPECT_TRUE(parsed->members[0].complete);
}

TEST(ParsePeers, BoundsAndWrongShapes) {
  nlohmann::json many{{"enabled", true}, {"members", nlohmann::json::array()}};
  for (int i = 0; i < 100; ++i) many["members"].push_back(member("nc" + std::to_string(i)));
  EXPECT_EQ(parse_peers(many, "me")->members.size(), 64U);
  for (const auto* text :
       {"[]", "{}", R"({"enabled":1})", R"({"enabled":true})", R"({"enabled":true,"members":{}})"})
    EXPECT_EQ(parse_peers(nlohmann::json::parse(text), "me").error().code, ErrorCode::corrupt) << text;
  EXPECT_FALSE(parse_peers(nlohmann::json::parse(R"({"enabled":false})"), "me")->enabled);
}

TEST(PeerSet, WhoWasDroppedDoesNotComeBack) {
  PeerSet peers;
  const auto answer = [] {
    return *parse_peers({{"enabled", true}, {"members", {member("nc3"), member("nc2")}}}, "nc1");
  };
  EXPECT_TRUE(peers.update(answer()));
  EXPECT_FALSE(peers.update(answer()));
  EXPECT_EQ(peers.live(), (std::vector<std::string>{"nc2", "nc3"}));
  peers.drop("nc2");
  EXPECT_FALSE(peers.update(answer()));
  EXPECT_EQ(peers.live(), (std::vector<std::string>{"nc3"}));
  EXPECT_FALSE(peers.find("nc2"));
  EXPECT_TRUE(peers.find("nc3"));
}

TEST(FrameRing, ForgetsTheOldestAndStaysInBounds) {
  FrameRing ring(5 * 1000);
  chunk::FrameEncoder encoder;
  std::vector<chunk::ChunkId> ids;
  for (int i = 0; i < 20; ++i) {
    std::string raw(600, '\0'), frame;
    for (std::size_t at = 0; at < raw.size(); ++at)
      raw[at] = static_cast<char>(at * at * 31 + at * static_cast<std::size_t>(i) * 7);
    raw += std::to_string(i);
    const auto header = *encoder.append(raw, frame);
    ids.push_back(header.id);
    ring.put(header, std::span(frame).subspan(chunk::kFrameHeaderBytes));
    EXPECT_LE(ring.bytes(), 5000U);
    const auto found = ring.find(header.id);
    ASSERT_TRUE(found);
    EXPECT_EQ(*found, frame);
    ring.put(header, std::span(frame).subspan(chunk::kFrameHeaderBytes));  // twice costs nothing
  }
  EXPECT_FALSE(ring.find(ids[0]));
  EXPECT_TRUE(ring.find(ids[19]));
  ring.trim_idle();
  EXPECT_TRUE(ring.find(ids[19]));
  ring.trim_idle();
  EXPECT_EQ(ring.bytes(), 0U);
}

}  // namespace
}  // namespace educloud::nc
